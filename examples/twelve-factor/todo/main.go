// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command todo is a small service in the manner of https://12factor.net: all of its configuration is in the environment, it
// keeps nothing of its own, and any number of copies may run. It finds Vault at one address, that of a redirector, and leases
// the credentials of its database there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	environment := map[string]string{}
	for _, name := range []string{"LISTEN", "DATABASE", "VAULT_ADDR", "VAULT_ROLE_ID", "VAULT_SECRET_ID"} {
		if environment[name] = os.Getenv(name); environment[name] == "" {
			return errors.New("the environment has no " + name)
		}
	}
	v := &vault{address: environment["VAULT_ADDR"], http: &http.Client{Timeout: time.Minute}}
	if err := v.login(ctx, environment["VAULT_ROLE_ID"], environment["VAULT_SECRET_ID"]); err != nil {
		return err
	}
	db := &database{address: environment["DATABASE"], vault: v}
	if err := db.lease(ctx); err != nil {
		return err
	}
	defer db.close()
	go db.keep(ctx)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /todos", func(w http.ResponseWriter, r *http.Request) {
		todos, err := db.list(r.Context())
		answer(w, todos, err)
	})
	mux.HandleFunc("POST /todos", func(w http.ResponseWriter, r *http.Request) {
		var todo struct{ Text string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&todo); err != nil || todo.Text == "" {
			http.Error(w, `a todo is {"text": "…"}`, http.StatusBadRequest)
			return
		}
		answer(w, todo, db.add(r.Context(), todo.Text))
	})
	server := &http.Server{Addr: environment["LISTEN"], Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(ending)
	}()
	log.Printf("todo: serving at %s", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, document any, err error) {
	if err != nil {
		log.Printf("todo: %v", err)
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document)
}
