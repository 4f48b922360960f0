// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

//go:embed twelve-factor.Caddyfile
var caddyfile string

// errNoMariaDB says what is missing.
var errNoMariaDB = errors.New("MariaDB is not installed: mariadbd and mariadb-install-db, which are in Debian's package mariadb-server")

// findMariaDB returns the server, and what makes its folder of data. Debian has the former where only root looks for it.
func findMariaDB() (server, install string, err error) {
	if server, err = exec.LookPath("mariadbd"); err != nil {
		if server, err = exec.LookPath("/usr/sbin/mariadbd"); err != nil {
			return "", "", errNoMariaDB
		}
	}
	if install, err = exec.LookPath("mariadb-install-db"); err != nil {
		return "", "", errNoMariaDB
	}
	return server, install, nil
}

// todo is a copy of the service.
type todo struct {
	*process.Process
	url string
}

const todos = 2

// start returns when the copies of the service serve.
func (d *demo) start(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "twelve-factor-"); err != nil {
		return err
	}
	if d.cluster, err = cluster.Start(ctx, cluster.Options{Vaults: 2, Storage: cluster.ConsulStorage}); err != nil {
		return err
	}
	d.say("Consul and two Vault nodes are up, with Consul as their storage")
	password := rand.Text()
	if err := d.startMariaDB(ctx, password); err != nil {
		return err
	}
	d.say("MariaDB is started at %s", d.database())
	if err := d.setUpVault(ctx, password); err != nil {
		return err
	}
	program, err := filepath.Abs(d.caddyProgram)
	if err != nil {
		return err
	}
	socket := "unix/" + filepath.Join(d.dir, "admin.sock")
	d.caddy, err = harness.Start(ctx, harness.Options{
		Program: program, Caddyfile: caddyfile, IP: d.cluster.IP(cluster.FirstFreeHost), Admin: socket, Dir: d.dir,
		Env: []string{"DEMO_HOST=" + d.cluster.IP(cluster.FirstFreeHost), "DEMO_CONSUL=" + d.cluster.Consuls[0].HTTPAddr, "DEMO_ADMIN=" + socket},
	})
	if err != nil {
		return err
	}
	d.say("the redirector is up: Vault is found at %s", d.vault())
	for i := range todos {
		copied, err := d.startTodo(ctx, i)
		if err != nil {
			return err
		}
		d.say("a copy of the service is up at %s", copied.url)
	}
	return nil
}

func (d *demo) vault() string    { return "http://" + d.cluster.IP(cluster.FirstFreeHost) + ":8200" }
func (d *demo) database() string { return d.cluster.IP(cluster.FirstFreeHost+1) + ":3306" }

// startMariaDB makes a folder of data, and starts a server on it in which Vault may make users.
func (d *demo) startMariaDB(ctx context.Context, password string) error {
	server, install, err := findMariaDB()
	if err != nil {
		return err
	}
	data, setUp := filepath.Join(d.dir, "mariadb"), filepath.Join(d.dir, "set-up.sql")
	args := []string{"--no-defaults", "--datadir=" + data, "--skip-test-db"}
	var user []string
	if os.Getuid() == 0 {
		user = []string{"--user=root"} // the folder is not another user's
	}
	if out, err := exec.CommandContext(ctx, install, append(args, user...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	err = os.WriteFile(setUp, []byte(`CREATE DATABASE todo;
CREATE TABLE todo.todos (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT NOT NULL);
CREATE USER 'vault'@'%' IDENTIFIED BY '`+password+`';
GRANT ALL ON *.* TO 'vault'@'%' WITH GRANT OPTION;
`), 0o600)
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(d.database(), ":")
	d.mariadb = d.process("mariadb", server, append([]string{
		"--no-defaults", "--datadir=" + data, "--bind-address=" + host, "--port=" + port, "--socket=" + filepath.Join(d.dir, "mariadb.sock"),
		"--pid-file=" + filepath.Join(d.dir, "mariadb.pid"), "--skip-name-resolve", "--init-file=" + setUp,
	}, user...)...)
	return d.mariadb.Start()
}

// process is one that close ends.
func (d *demo) process(name, program string, args ...string) *process.Process {
	return &process.Process{Name: name, LogFile: filepath.Join(d.dir, name+".log"), Path: program, Args: args, Dir: d.dir}
}

// setUpVault configures Vault to create database users for clients that log in as the service.
func (d *demo) setUpVault(ctx context.Context, password string) error {
	do := func(method, path string, body, out any) error {
		return d.cluster.Do(ctx, nil, method, "/v1/"+path, body, out)
	}
	err := errors.Join(
		do(http.MethodPost, "sys/mounts/database", map[string]any{"type": "database"}, nil),
		do(http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"}, nil),
		do(http.MethodPost, "sys/policies/acl/todo", map[string]any{"policy": `
			path "database/creds/todo" { capabilities = ["read"] }
			path "sys/leases/renew" { capabilities = ["update"] }`}, nil),
		do(http.MethodPost, "auth/approle/role/todo", map[string]any{"token_policies": []string{"todo"}, "token_ttl": "24h"}, nil),
		do(http.MethodPost, "database/roles/todo", map[string]any{
			"db_name": "todo", "default_ttl": "2m", "max_ttl": "24h",
			"creation_statements": []string{
				"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT, INSERT ON todo.todos TO '{{name}}'@'%'",
			},
		}, nil))
	if err != nil {
		return err
	}
	// Vault looks whether the database takes the password, and that may still be starting.
	err = wait.Poll(ctx, 200*time.Millisecond, "have Vault connect to MariaDB", func(context.Context) error {
		if err := d.mariadb.Ended(); err != nil {
			return err
		}
		return do(http.MethodPost, "database/config/todo", map[string]any{
			"plugin_name": "mysql-database-plugin", "allowed_roles": "todo",
			"connection_url": "{{username}}:{{password}}@tcp(" + d.database() + ")/", "username": "vault", "password": password,
		}, nil)
	})
	if err != nil {
		return err
	}
	var id struct {
		Data struct {
			RoleID   string `json:"role_id"`
			SecretID string `json:"secret_id"`
		}
	}
	if err := do(http.MethodGet, "auth/approle/role/todo/role-id", nil, &id); err != nil {
		return err
	}
	d.roleID = id.Data.RoleID
	if err := do(http.MethodPost, "auth/approle/role/todo/secret-id", map[string]any{}, &id); err != nil {
		return err
	}
	d.secret = id.Data.SecretID
	return nil
}

// startTodo starts a copy of the service, and returns when it serves.
func (d *demo) startTodo(ctx context.Context, i int) (*todo, error) {
	address := fmt.Sprintf("%s:%d", d.cluster.IP(cluster.FirstFreeHost+2), 8000+i)
	program, err := filepath.Abs(d.todoProgram)
	if err != nil {
		return nil, err
	}
	t := &todo{d.process(fmt.Sprintf("todo-%d", i), program), "http://" + address}
	t.Env = []string{
		"LISTEN=" + address, "DATABASE=" + d.database(), "VAULT_ADDR=" + d.vault(),
		"VAULT_ROLE_ID=" + d.roleID, "VAULT_SECRET_ID=" + d.secret,
	}
	d.todos = append(d.todos, t)
	if err := t.Start(); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("it does not serve after two minutes"))
	defer cancel()
	err = wait.Poll(waiting, 50*time.Millisecond, "start "+t.Name, func(ctx context.Context) error {
		if err := t.Ended(); err != nil {
			return err
		}
		return ask(ctx, http.DefaultClient, t.url, false)
	})
	return t, err
}

// leases counts the credentials that are leased.
func (d *demo) leases(ctx context.Context) (int, error) {
	var list struct{ Data struct{ Keys []string } }
	err := d.cluster.Do(ctx, nil, "LIST", "/v1/sys/leases/lookup/database/creds/todo/", nil, &list)
	return len(list.Data.Keys), err
}

// close ends and removes what there is.
func (d *demo) close() error {
	var errs []error
	for _, t := range d.todos {
		errs = append(errs, t.Close())
	}
	if d.caddy != nil {
		errs = append(errs, d.caddy.Close())
	}
	if d.mariadb != nil {
		errs = append(errs, d.mariadb.Close())
	}
	errs = append(errs, d.cluster.Close())
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
