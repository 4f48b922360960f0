// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// fault is something that happens to a cluster in which all is well, and that can be healed.
type fault struct {
	name string
	make func(ctx context.Context, c *cluster.Cluster, active, standby *cluster.Vault) error
	heal func(ctx context.Context, c *cluster.Cluster, active, standby *cluster.Vault) error // nil: it heals by itself
}

var allFaults = []fault{
	{"active killed", func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Kill()
	}, restartActive},
	{"active paused", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Pause(ctx)
	}, func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Continue()
	}},
	{"active stopped", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Stop(ctx)
	}, restartActive},
	{"active sealed", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Seal(ctx)
	}, func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Unseal(ctx)
	}},
	{"active stepped down", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.StepDown(ctx)
	}, nil},
	{"active deregistered", func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.API().Agent().ServiceDeregister(a.ServiceID)
	}, nil},
	{"service maintenance", func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.API().Agent().EnableServiceMaintenance(a.ServiceID, "soak")
	}, func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.API().Agent().DisableServiceMaintenance(a.ServiceID)
	}},
	{"node maintenance", func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.API().Agent().EnableNodeMaintenance("soak")
	}, func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.API().Agent().DisableNodeMaintenance()
	}},
	{"active cut off", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.Pause(ctx)
	}, func(_ context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.Continue()
	}},
	{"cut off and stepped down", func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return errors.Join(a.Agent.Kill(), a.StepDown(ctx))
	}, func(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
		return a.Agent.Restart(ctx)
	}},
	{"standby killed", func(_ context.Context, _ *cluster.Cluster, _, s *cluster.Vault) error {
		return s.Kill()
	}, func(ctx context.Context, _ *cluster.Cluster, _, s *cluster.Vault) error {
		return s.Restart(ctx)
	}},
	{"standby paused", func(ctx context.Context, _ *cluster.Cluster, _, s *cluster.Vault) error {
		return s.Pause(ctx)
	}, func(_ context.Context, _ *cluster.Cluster, _, s *cluster.Vault) error {
		return s.Continue()
	}},
	{"Consul paused", func(ctx context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
		return c.Consuls[0].Pause(ctx)
	}, func(_ context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
		return c.Consuls[0].Continue()
	}},
	{"Consul killed", func(_ context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
		return c.Consuls[0].Kill()
	}, restartConsuls},
	{"Consul leaderless", func(_ context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
		return errors.Join(c.Consuls[1].Kill(), c.Consuls[2].Kill())
	}, restartConsuls},
	{"all Consul servers killed", func(_ context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
		return errors.Join(c.Consuls[0].Kill(), c.Consuls[1].Kill(), c.Consuls[2].Kill())
	}, restartConsuls},
}

func restartActive(ctx context.Context, _ *cluster.Cluster, a, _ *cluster.Vault) error {
	return a.Restart(ctx)
}

func restartConsuls(ctx context.Context, c *cluster.Cluster, _, _ *cluster.Vault) error {
	for _, s := range c.Consuls {
		if s.Running() {
			continue
		}
		if err := s.Restart(ctx); err != nil {
			return err
		}
	}
	return nil
}

func names(faults []fault) (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// choose returns the faults with the names, all if there are none.
func choose(list string) ([]fault, error) {
	if list == "" {
		return allFaults, nil
	}
	var chosen []fault
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(allFaults, func(f fault) bool { return f.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("no fault is called %q; there are: %s", name, strings.Join(names(allFaults), ", "))
		}
		chosen = append(chosen, allFaults[i])
	}
	return chosen, nil
}

// The lengths of what is left to chance.
const (
	holdMin, holdMax = 500 * time.Millisecond, 15 * time.Second // of a fault
	calmMin, calmMax = 0, 3 * time.Second                       // after the cluster has settled
	healWithin       = 90 * time.Second
	knownWithin      = 15 * time.Second // to Caddy, once it is over: Consul is asked again after 10 seconds at most
)

// makeFaults makes faults until the time is up. Each comes to a cluster that has settled after the one before: faults that
// come together, such as a Vault that fails while Consul is away, cannot be known.
func (s *soak) makeFaults(ctx context.Context) error {
	random := rand.New(rand.NewPCG(s.seed, 0))
	var bag []fault // drawn from without putting back: every fault comes before any comes again
	for begin := time.Now(); time.Since(begin) < s.duration; {
		if len(bag) == 0 {
			bag = slices.Clone(s.faults)
			random.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		f := bag[0]
		bag = bag[1:]
		hold := holdMin + time.Duration(random.Int64N(int64(holdMax-holdMin)))
		calm := calmMin + time.Duration(random.Int64N(int64(calmMax-calmMin)))
		if err := s.makeFault(ctx, f, random.IntN(2), hold); err != nil {
			if ctx.Err() != nil {
				return context.Canceled
			}
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := wait.Sleep(ctx, calm); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) makeFault(ctx context.Context, f fault, which int, hold time.Duration) error {
	c := s.cluster
	active, err := c.WaitActive(ctx)
	if err != nil {
		return err
	}
	standbys := slices.DeleteFunc(slices.Clone(c.Vaults), func(v *cluster.Vault) bool { return v == active })
	standby := standbys[which%len(standbys)]
	begin := time.Now()
	s.score.begin(f.name)
	if err := f.make(ctx, c, active, standby); err != nil {
		return err
	}
	if err := wait.Sleep(ctx, hold); err != nil {
		return err
	}
	healing, cancel := context.WithTimeoutCause(ctx, healWithin, fmt.Errorf("not healed after %s", healWithin))
	defer cancel()
	if f.heal != nil {
		if err := f.heal(healing, c, active, standby); err != nil {
			return err
		}
	}
	if err := c.WaitHealthy(healing); err != nil {
		return err
	}
	if err := s.caughtUp(ctx); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s  %-25s active %s, for %4.1fs, settled after %4.1fs\n", begin.Format("15:04:05.000"), f.name, active.Name,
		hold.Seconds(), time.Since(begin).Seconds())
	return s.caddy.Ended()
}

// caughtUp waits until Caddy, too, knows that all is well: what it has not heard of when Consul fails next, it cannot know.
func (s *soak) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, knownWithin, fmt.Errorf("caddy does not know the active node %s after all is well", knownWithin))
	defer cancel()
	return wait.Poll(ctx, 20*time.Millisecond, "wait for caddy", func(ctx context.Context) error {
		if err := s.caddy.Ended(); err != nil {
			return err
		}
		active, err := s.cluster.WaitActive(ctx)
		if err == nil && !s.caddy.knows(ctx, active.URL) {
			err = fmt.Errorf("%s is active", active.Name)
		}
		return err
	})
}
