// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// maxVersions is how many versions of a secret Vault keeps: more than there are writes of one, with all repetitions.
const maxVersions = 4 * writesPerKey

// countWrites asks Vault how often each write was carried out. Each makes a version of its secret, with a value that no other one
// has. So if there are as many versions as writes that were acknowledged, and none failed, each was carried out once; else
// each version is read.
func (b *bench) countWrites(ctx context.Context, p *phase) error {
	byKey := map[string][]*operation{}
	for _, tasks := range p.tasks {
		for _, o := range tasks {
			if o.write {
				byKey[o.key] = append(byKey[o.key], o)
			}
		}
	}
	active, err := b.cluster.WaitActive(ctx)
	if err != nil {
		return err
	}
	keys := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for range 4 {
		wg.Go(func() {
			for key := range keys {
				if err := b.countWritesOf(ctx, active, key, byKey[key]); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("how often writes were carried out: %w", err))
					mu.Unlock()
				}
			}
		})
	}
	for key := range byKey {
		keys <- key
	}
	close(keys)
	wg.Wait()
	return errors.Join(errs[:min(3, len(errs))]...)
}

// countWritesOf looks at the writes of one secret.
func (b *bench) countWritesOf(ctx context.Context, active *cluster.Vault, key string, writes []*operation) error {
	var metadata struct {
		Data struct {
			Current  int `json:"current_version"`
			Versions map[string]any
		}
	}
	err := b.cluster.Do(ctx, active, http.MethodGet, "/v1/"+mountPath+"/metadata/"+key, nil, &metadata)
	if failed := (*cluster.APIError)(nil); errors.As(err, &failed) && failed.Status == http.StatusNotFound {
		err = nil // it was never written
	}
	if err != nil {
		return err
	}
	current := metadata.Data.Current
	if len(metadata.Data.Versions) != current {
		return fmt.Errorf("%s has %d versions, of which %d are kept", key, current, len(metadata.Data.Versions))
	}
	failed := 0
	for _, o := range writes {
		if o.failed() {
			failed++
		}
	}
	if failed == 0 && current == len(writes) {
		for _, o := range writes {
			o.times = 1
		}
		return nil
	}
	times := map[string]int{}
	for version := 1; version <= current; version++ {
		var secret struct {
			Data struct{ Data struct{ Value string } }
		}
		if err := b.cluster.Do(ctx, active, http.MethodGet, fmt.Sprintf("/v1/%s/data/%s?version=%d", mountPath, key, version), nil, &secret); err != nil {
			return err
		}
		times[secret.Data.Data.Value]++
	}
	for _, o := range writes {
		o.times = times[o.value]
		delete(times, o.value)
	}
	if len(times) > 0 {
		return fmt.Errorf("%s has versions that nobody wrote: %v", key, times)
	}
	return nil
}
