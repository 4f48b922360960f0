// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// operator does to the nodes what the script's commands ask for.
func operator(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	do := map[string]func(context.Context, *cluster.Vault) error{
		"/stop":   func(ctx context.Context, v *cluster.Vault) error { return v.Stop(ctx) },
		"/start":  func(_ context.Context, v *cluster.Vault) error { return v.Start() },
		"/unseal": func(ctx context.Context, v *cluster.Vault) error { return v.Unseal(ctx) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, v := range c.Vaults {
			if v.URL == r.URL.Query().Get("node") {
				if err := do[r.URL.Path](r.Context(), v); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
				return
			}
		}
		http.Error(w, "no such node", http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// step is a line that the script printed.
type step struct {
	at   time.Time
	text string
}

func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+c.Consuls[0].HTTPAddr+" {\n\t\tscheme http\n\t}\n}")
	site := "http://" + caddy.IP + ":8080"
	old, r := readSteadily(t, c, caddy, site)
	r.worst.Store(0)

	var watch sync.WaitGroup
	var gone time.Time // when the node that is active now first says that it is not
	watching, cancel := context.WithCancel(t.Context())
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		for wait.Sleep(watching, 5*time.Millisecond) == nil {
			if code, err := old.Health(watching); err != nil || code != http.StatusOK {
				gone = time.Now()
				return
			}
		}
	})
	steps := runRollingUpgrade(t, c)
	watch.Wait()
	stall := time.Duration(r.worst.Load())
	r.more(t, 60)
	r.stop()

	lost := map[int]int{}
	for _, f := range r.take() {
		in := 0
		for i, s := range steps {
			if f.ended.After(s.at) {
				in = i + 1
			}
		}
		lost[in]++
		if f.node != old.Addr || f.began.After(gone.Add(500*time.Millisecond+2*stall)) {
			t.Errorf("a read at %s (active at first: %s), begun %s after that was gone: %v", f.node, old.Addr, f.began.Sub(gone), f.err)
		}
	}
	for i, s := range steps {
		t.Logf("lost before: %d; %s", lost[i], s.text)
	}
	t.Logf("lost after: %d; %d reads, longest stall %s", lost[len(steps)], r.count.Load(), stall)
}

// runRollingUpgrade runs the script and returns its steps.
func runRollingUpgrade(t *testing.T, c *cluster.Cluster) (steps []step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	args := []string{"../../../examples/rolling-upgrade/rolling-upgrade.sh"}
	for _, v := range c.Vaults {
		args = append(args, v.URL)
	}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.WaitDelay = time.Second
	cmd.Env = process.Environ([]string{"VAULT_TOKEN=" + c.RootToken, "VAULT_SETTLE=5", "VAULT_WAIT=90"}, "VAULT_")
	url := operator(t, c)
	for _, name := range []string{"stop", "start", "unseal"} {
		cmd.Env = append(cmd.Env, fmt.Sprintf(`VAULT_%s_COMMAND=curl -sSf --noproxy '*' "%s/%s?node=$VAULT_NODE"`, strings.ToUpper(name), url, name))
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		steps = append(steps, step{time.Now(), lines.Text()})
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %+v", err, steps)
	}
	if len(steps) < 11 || !strings.Contains(steps[len(steps)-1].text, "done: ") {
		t.Errorf("%+v", steps)
	}
	return steps
}
