// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// checked is a config of Caddy that is checked, and the cluster that it names.
type checked struct {
	t                 *testing.T
	c                 *cluster.Cluster
	caddy             *harness.Caddy
	config, tokenFile string
	token             string
}

func newChecked(t *testing.T) *checked {
	t.Helper()
	c := cluster.Run(t, cluster.Options{ACL: true})
	k := &checked{t: t, c: c, caddy: harness.Prepare(t, harness.Options{Caddyfile: "{\n}\n"})}
	token, err := c.Token(timeout(t), `service_prefix "vault" { policy = "read" } node_prefix "" { policy = "read" }`)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k.config, k.tokenFile, k.token = filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "token"), token
	ip := k.caddy.IP
	k.write(k.config, "http://"+ip+":8080 {\n\tbind "+ip+"\n\tvault_redirect {\n\t\tconsul "+c.Consuls[0].HTTPAddr+" {\n\t\t\ttoken_file "+
		k.tokenFile+"\n\t\t}\n\t\tscheme http\n\t}\n}\n")
	k.write(k.tokenFile, token)
	return k
}

func (k *checked) write(name, text string) {
	k.t.Helper()
	k.must(os.WriteFile(name, []byte(text), 0o600))
}

func (k *checked) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// ends fails unless the command ends with the code and says what it should.
func (k *checked) ends(what string, wantCode int, want ...string) {
	k.t.Helper()
	cmd := k.caddy.Command(k.t.Context(), "vault-redirect", "check", "--config", k.config)
	out, _ := cmd.CombinedOutput()
	text := strings.Join(strings.Fields(string(out)), " ") // whatever the columns are
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		k.t.Errorf("%s: exit %d, want %d", what, code, wantCode)
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			k.t.Errorf("%s: no %q", what, w)
		}
	}
	if strings.Contains(text, k.token) {
		k.t.Errorf("%s: the token is shown", what)
	}
	k.t.Logf("%s:\n%s", what, out)
}

func TestCheckCommand(t *testing.T) {
	t.Parallel()
	k := newChecked(t)
	k.must(k.c.WaitSettled(timeout(t)))
	active, err := k.c.Active(timeout(t))
	k.must(err)
	k.ends("healthy", 0, ", "+active.URL+": it says so itself", "0 warning, 0 wrong", "nothing was hidden", "all nodes that say it are of one cluster")

	config, err := os.ReadFile(k.config)
	k.must(err)
	k.write(k.config, strings.Replace(string(config), "scheme http", "scheme http\n\t\tstandby method GET LIST", 1))
	k.ends("reads for standbys that forward", 0, "gets no reads: forwards reads to the active node", "the option standby does nothing: no standby serves reads itself", "1 warning, 0 wrong")
	k.write(k.config, string(config))

	standby := k.c.Vaults[slices.IndexFunc(k.c.Vaults, func(v *cluster.Vault) bool { return v != active })]
	k.must(standby.Seal(timeout(t)))
	k.ends("a standby is sealed", 0, "sealed (503)", "vault operator unseal -address="+standby.URL, ", 0 wrong")
	k.must(standby.Unseal(timeout(t)))

	k.write(k.tokenFile, "00000000-0000-0000-0000-000000000000")
	k.ends("the token is not known", 2, "wrong token", `node_prefix "" { policy = "read" }`)
	k.write(k.tokenFile, k.token)

	k.must(k.c.Consuls[0].Stop(timeout(t)))
	k.ends("Consul is stopped", 2, "wrong consul", "connection refused", "start the Consul agent at "+k.c.Consuls[0].HTTPAddr)
}
