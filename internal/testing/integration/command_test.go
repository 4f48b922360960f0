// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// The data of the original's own tests: only node2 passes its check, and no tag tells which is active.
func originalData() []*api.ServiceEntry {
	var entries []*api.ServiceEntry
	for i, name := range []string{"node0", "node1", "node2", "node3", "node4"} {
		status := "warning"
		if name == "node2" {
			status = "passing"
		}
		entries = append(entries, standin.Node(name,
			standin.Address("127.17.0."+string(rune('2'+i))), standin.ServiceAddress(""), standin.Tags("secrets"),
			standin.Check("service:vault", status), standin.Index([]uint64{7, 17, 21, 16, 23}[i])))
	}
	return entries
}

func TestDropInCommand(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, originalData()...)
	for _, row := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"defaults", nil, "http://node2:8200/v1/x?y"},
		{"https", []string{"-S"}, "https://node2:8200/v1/x?y"},
		{"address", []string{"-I"}, "http://127.17.0.4:8200/v1/x?y"},
		{"long flags", []string{"--https", "--ip", "--poll-interval", "1.5", "--checkid", "service:vault"}, "https://127.17.0.4:8200/v1/x?y"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := harness.Port(t)
			s := runCommand(t, append(append([]string{"vault-redirect", "-P", p}, row.flags...), consul.Addr())...)
			site := "http://" + s.IP + ":" + p
			s.await("it answers", func() bool { return answers(site) })
			if code, location, _ := get(t, site+"/v1/x?y"); code != http.StatusTemporaryRedirect || location != row.want {
				t.Errorf("status %d, Location %s, want %s", code, location, row.want)
			}
			if code, _, body := get(t, site+"/vault-redirector-health"); code != http.StatusOK || !strings.Contains(body, consul.Addr()) {
				t.Errorf("health: status %d: %s", code, body)
			}
		})
	}
}

// answers reports whether a site accepts connections.
func answers(site string) bool {
	resp, err := client.Get(site + "/vault-redirector-health")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return true
}

func TestDropInCommandByCheck(t *testing.T) {
	t.Parallel()
	// The definition in the original's manual: check id api on /v1/sys/health; 200 is passing, a standby's 429 warning.
	consul := standin.RunConsul(t,
		standin.Node("vault-1", standin.Tags("secrets"), standin.Check("api", "warning")),
		standin.Node("vault-2", standin.Tags("secrets"), standin.Check("api", "passing")))
	p := harness.Port(t)
	s := runCommand(t, "vault-redirect", "-P", p, "-C", "api", consul.Addr())
	s.await("it answers", func() bool { return answers("http://" + s.IP + ":" + p) })
	s.awaitTarget("http://"+s.IP+":"+p, "http://vault-2:8200")
}

func TestDropInCommandServesTLS(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, originalData()...)
	ca := cluster.Run(t, cluster.Options{NoVault: true, TLS: true})
	ip, err := harness.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Cert(ip)
	if err != nil {
		t.Fatal(err)
	}
	p := harness.Port(t)
	s := run(t, harness.Options{IP: ip, Args: []string{"vault-redirect", "-P", p, "-c", cert, "-k", key, consul.Addr()}})
	https := trusting(t, ca.VaultCA)
	https.CheckRedirect = client.CheckRedirect
	s.await("it answers https", func() bool {
		resp, err := https.Get("https://" + ip + ":" + p + "/v1/x")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusTemporaryRedirect
	})
}

func TestDropInCommandChangesItsLogLevel(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, originalData()...)
	p := harness.Port(t)
	s := runCommand(t, "vault-redirect", "-v", "-l", "-P", p, consul.Addr())
	site := "http://" + s.IP + ":" + p
	s.await("it answers", func() bool { return answers(site) })
	const line = "handled request"
	get(t, site+"/v1/quiet")
	if strings.Contains(s.Log(), line) {
		t.Error("-l: a request was logged")
	}
	if code, body := s.admin("POST", "/config/logging/logs/default/level", "application/json", `"INFO"`); code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	get(t, site+"/v1/loud")
	s.await("requests are logged", func() bool { return strings.Contains(s.Log(), line) && strings.Contains(s.Log(), "/v1/loud") })
	if strings.Contains(s.Log(), "/v1/quiet") {
		t.Error("a request was logged although logging was off")
	}
}

func TestDropInCommandHelpAndMistakes(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	caddy := harness.Prepare(t, harness.Options{Args: []string{"vault-redirect"}})
	run := func(args ...string) (string, int) {
		cmd := caddy.Command(t.Context(), append([]string{"vault-redirect"}, args...)...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	help, code := run("-h")
	for _, flag := range []string{
		"-v, --verbose", "-l, --log-disable", "-V, --version", "-S, --https", "-I, --ip", "-p, --poll-interval",
		"-P, --port", "-C, --checkid", "-c, --cert-path", "-k, --key-path", "CONSUL_HOST_PORT", "localhost:2019",
	} {
		if code != 0 || !strings.Contains(help, flag) {
			t.Errorf("-h (exit %d) does not explain %s", code, flag)
		}
	}
	if out, code := run("-V"); code != 0 || !regexp.MustCompile(`^vault-redirector \S+ \(see <https://\S+> for source code\)\n$`).MatchString(out) {
		t.Errorf("-V: exit %d: %s", code, out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "CONSUL_HOST_PORT is missing"},
		{[]string{"localhost"}, "must be in host:port or ip:port format"},
		{[]string{"localhost:port"}, "must be in host:port or ip:port format"},
		{[]string{"localhost:99999"}, "port 99999 is not between 1 and 65535"},
		{[]string{"a:1", "b:2"}, `unexpected argument \"b:2\"`},
		{[]string{"-c", empty, "a:1"}, "must be specified together"},
		{[]string{"-k", empty, "a:1"}, "must be specified together"},
		{[]string{"-c", "vault-active", "a:1"}, "that is -C (--checkid) now"},
		{[]string{"-c", empty, "-k", empty, "a:1"}, "--cert-path " + empty},
		{[]string{"-p", "0", "a:1"}, "not a number of seconds"},
		{[]string{"-p", "nan", "a:1"}, "not a number of seconds"},
		{[]string{"-P", "0", "a:1"}, "not between 1 and 65535"},
		{[]string{"--frequency", "1", "a:1"}, "unknown flag: --frequency"},
	} {
		out, code := run(row.args...)
		if code != 1 || !strings.Contains(out, row.want) {
			t.Errorf("%v: exit %d, want 1 and %q:\n%s", row.args, code, row.want, out)
		}
		if lines := strings.Count(strings.TrimSpace(out), "\n"); lines > 4 {
			t.Errorf("%v: %d lines, want one that is clear:\n%s", row.args, lines+1, out)
		}
	}
}

// The keys of the original's health document are there, by name and type.
func TestDropInCommandHealthDocument(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, originalData()...)
	p := harness.Port(t)
	s := runCommand(t, "vault-redirect", "-P", p, consul.Addr())
	s.await("it answers", func() bool { return answers("http://" + s.IP + ":" + p) })
	_, _, body := get(t, "http://"+s.IP+":"+p+"/vault-redirector-health")
	var doc struct {
		Healthy        *bool
		Application    string
		Version        string
		Source         string
		ConsulHostPort string `json:"consul_host_port"`
		ActiveVault    string `json:"active_vault"`
		LastConsulPoll string `json:"last_consul_poll"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Healthy == nil || !*doc.Healthy || doc.Application != "vault-redirector" || doc.Version == "" || doc.Source == "" ||
		doc.ConsulHostPort != consul.Addr() || doc.ActiveVault != "node2:8200" || doc.LastConsulPoll == "" {
		t.Errorf("document %s", body)
	}
}
