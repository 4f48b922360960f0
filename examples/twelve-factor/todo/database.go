// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"database/sql"
	"log"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// database is MySQL, to which Vault has the key.
type database struct {
	address string
	vault   *vault
	leased  *secret // of keep alone, once that runs
	now     atomic.Pointer[sql.DB]
}

// lease leases credentials, and uses them from now on.
func (d *database) lease(ctx context.Context) error {
	s, err := d.vault.lease(ctx)
	if err != nil {
		return err
	}
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.DBName = s.Data.Username, s.Data.Password, "tcp", d.address, "todo"
	config.Timeout = 5 * time.Second
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	next := sql.OpenDB(connector)
	if err := next.PingContext(ctx); err != nil {
		_ = next.Close()
		return err
	}
	d.leased = s
	if last := d.now.Swap(next); last != nil {
		time.AfterFunc(time.Minute, func() { _ = last.Close() }) // requests may still use it
	}
	log.Printf("todo: leased credentials for %s: %s", s.ttl(), s.Data.Username)
	return nil
}

// keep renews the lease when a third of it is over, and leases new credentials where that is refused.
func (d *database) keep(ctx context.Context) {
	for {
		select {
		case <-time.After(d.leased.ttl() / 3):
		case <-ctx.Done():
			return
		}
		s, err := d.vault.renew(ctx, d.leased.LeaseID)
		if err == nil && s.ttl() > time.Second {
			d.leased.LeaseDuration = s.LeaseDuration
			log.Printf("todo: renewed the lease for %s", s.ttl())
			continue
		}
		log.Printf("todo: the lease is not renewed: %v", err)
		if err := d.lease(ctx); err != nil {
			log.Printf("todo: no new credentials: %v", err)
			d.leased.LeaseDuration = 3 // try again soon
		}
	}
}

func (d *database) close() { _ = d.now.Load().Close() }

func (d *database) add(ctx context.Context, text string) error {
	_, err := d.now.Load().ExecContext(ctx, "INSERT INTO todos (text) VALUES (?)", text)
	return err
}

// list returns the newest todos.
func (d *database) list(ctx context.Context) ([]string, error) {
	rows, err := d.now.Load().QueryContext(ctx, "SELECT text FROM todos ORDER BY id DESC LIMIT 10")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	todos := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		todos = append(todos, text)
	}
	return todos, rows.Err()
}
