// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// mistake is a common mistake, with what check says of it, and the ways to mend it that the remedy names.
type mistake struct {
	name           string
	make           func(t *testing.T, c *standin.Cluster)
	site           string // default: localSite
	timeout        string // default: that of findingsOf
	check          string
	severity       doctor.Severity
	detail, remedy string
	mends          map[string]func(t *testing.T, c *standin.Cluster) (site string)
}

// mistakes is the table of them.
var mistakes = []mistake{
	{
		name: "one Vault, registered through a balancer with another agent, too",
		make: func(_ *testing.T, c *standin.Cluster) {
			register(c, append(three(c), entryOf(c, 0, "consul-server-1", standin.Check("vault-sealed-check", "critical")))...)
		},
		check: "registration", severity: doctor.Warning, detail: "is registered twice, as consul-server-1/vault:", remedy: "on its own machine",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"deregistered": ownAddresses},
	},
	{
		name: "one Vault, with a definition beside its own registration",
		make: func(_ *testing.T, c *standin.Cluster) {
			own := entryOf(c, 1, "vault-1")
			own.Service.ID = "vault"
			register(c, append(three(c), own)...)
		},
		check: "registration", severity: doctor.Warning, detail: "is registered twice, as vault-1/vault and vault-1/vault:", remedy: "remove the service definition",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"removed": ownAddresses},
	},
	{
		name: "api_addr is the balancer's",
		make: func(_ *testing.T, c *standin.Cluster) {
			register(c, entryOf(c, 0, "vault-0"), entryOf(c, 0, "vault-1"), entryOf(c, 0, "vault-2"))
		},
		check: "registration", severity: doctor.Warning, detail: "all nodes are registered with the same address", remedy: "set api_addr",
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"api_addr": ownAddresses,
			"redirect_to": func(_ *testing.T, c *standin.Cluster) string {
				list := three(c)
				for i, e := range list {
					e.Node.Address, e.Service.Port = []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}[i], list[0].Service.Port
				}
				register(c, list...)
				return with("redirect_to node_address")
			},
		},
	},
	{
		name: "api_addr has no port",
		make: func(_ *testing.T, c *standin.Cluster) {
			e := entryOf(c, 0, "localhost")
			e.Service.ID, e.Service.Address, e.Service.Port = "vault::443", "", 443
			register(c, e)
		},
		check: "registration", severity: doctor.Wrong, detail: "api_addr has no port: Vault is registered as vault::443", remedy: `api_addr = "https://localhost:8200"`,
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"api_addr": ownAddresses,
			"port":     func(_ *testing.T, c *standin.Cluster) string { return with("port " + portText(c.Vaults[0])) },
		},
	},
	{
		name: "named ports without a default",
		make: func(_ *testing.T, c *standin.Cluster) {
			e := entryOf(c, 0, "vault-0")
			e.Service.Port, e.Service.Ports = 0, api.ServicePorts{{Name: "api", Port: 1}, {Name: "cluster", Port: 2}}
			register(c, e)
		},
		check: "redirect", severity: doctor.Wrong, detail: "no port is registered, or several named ports of which none is the default", remedy: "option `port`",
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"port": func(_ *testing.T, c *standin.Cluster) string { return with("port " + portText(c.Vaults[0])) },
			"a default": func(_ *testing.T, c *standin.Cluster) string {
				e := entryOf(c, 0, "vault-0")
				e.Service.Ports = api.ServicePorts{{Name: "cluster", Port: 2}, {Name: "api", Port: e.Service.Port, Default: true}}
				e.Service.Port = 0
				register(c, e)
				return ""
			},
		},
	},
	{
		name: "a proxy cuts blocking queries short", timeout: "20s",
		make: func(_ *testing.T, c *standin.Cluster) {
			c.Consul.Handle(cutAfter(1200*time.Millisecond, http.StatusGatewayTimeout))
		},
		check: "blocking", severity: doctor.Warning, detail: "blocking queries fail after 1.", remedy: "(here: 1s)",
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"poll_interval": func(*testing.T, *standin.Cluster) string {
				return strings.Replace(localSite, "scheme http", "scheme http\n\t\tconsul {\n\t\t\tpoll_interval 1s\n\t\t}", 1)
			},
		},
	},
	{
		name:  "blocking queries fail at once",
		make:  func(_ *testing.T, c *standin.Cluster) { c.Consul.Handle(cutAfter(0, http.StatusInternalServerError)) },
		check: "blocking", severity: doctor.Warning, detail: "while others are answered: answered 500", remedy: "`index` and `wait`",
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"let pass": func(_ *testing.T, c *standin.Cluster) string { c.Consul.Handle(nil); return "" },
		},
	},
	{
		name: "an instance without checks",
		make: func(_ *testing.T, c *standin.Cluster) {
			c.Vaults[0].SetHealth(473)
			e := entryOf(c, 0, "k8s-sync")
			e.Service.Tags, e.Checks = nil, nil
			register(c, e)
		},
		check: "mark", severity: doctor.Warning, detail: "nothing marks an active node: the instances have no checks", remedy: `service_registration "consul"`,
		mends: map[string]func(*testing.T, *standin.Cluster) string{
			"service_registration": ownAddresses,
			"by URL": func(_ *testing.T, c *standin.Cluster) string {
				return "http://127.0.0.1:18200 {\n\tvault_redirect {\n\t\tvault " + c.Vaults[0].URL() + "\n\t}\n}"
			},
		},
	},
	{
		name:  "a quota that counts health checks",
		make:  answersAll(429, "", `{"errors":["request path \"sys/health\": rate limit quota exceeded"]}`),
		check: "role", severity: doctor.Warning, detail: "does not tell its state", remedy: "rate_limit_exempt_paths",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"exempt": ownAddresses},
	},
	{
		name:  "a listener that wants X-Forwarded-For",
		make:  answersAll(400, "", `{"errors":["missing x-forwarded-for header and configured to reject when not present"]}`),
		check: "role", severity: doctor.Warning, detail: "does not tell its state", remedy: "x_forwarded_for_reject_not_present = false",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"not rejected": ownAddresses},
	},
	{
		name:  "api_addr is the redirector, through a balancer",
		make:  answersAll(508, engine.RedirectorHeader, `{"errors":["x"]}`),
		check: "role", severity: doctor.Wrong, detail: "is a redirector, not Vault", remedy: "set api_addr",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"api_addr": ownAddresses},
	},
	{
		name: "a listener that expects the PROXY protocol", make: proxyListener,
		check: "role", severity: doctor.Wrong, detail: "PROXY protocol?", remedy: "allow_authorized",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"allow_authorized": ownAddresses},
	},
	{
		name: "a listener that expects the PROXY protocol, asked by TLS", make: proxyListener, site: strings.Replace(localSite, "scheme http", "", 1),
		check: "role", severity: doctor.Wrong, detail: "PROXY protocol?", remedy: "allow_authorized",
		mends: map[string]func(*testing.T, *standin.Cluster) string{"allow_authorized": ownAddresses},
	},
}

// Each remedy that check names is applied: then the finding is gone.
func TestCheckOfMistakesInTheField(t *testing.T) {
	noConsulEnv(t)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := mistaken(t, m)
			list, code := m.findings(t, c, m.site)
			wantFinding(t, list, m.check, m.severity, "", m.detail, m.remedy)
			if wrong := slices.ContainsFunc(list, func(f doctor.Finding) bool { return f.Severity == doctor.Wrong }); wrong != (code == 2) || m.severity == doctor.Warning && m.check == "registration" && wrong {
				t.Errorf("exit %d:\n%s", code, dump(list))
			}
			for name, mend := range m.mends {
				c := mistaken(t, m)
				site := mend(t, c)
				if site == "" {
					site = m.site
				}
				list, _ := m.findings(t, c, site)
				if slices.ContainsFunc(list, func(f doctor.Finding) bool { return f.Severity != doctor.OK && f.Check == m.check }) {
					t.Errorf("after the remedy %s there is still\n%s", name, dump(list))
				}
			}
		})
	}
}

// mistaken returns a cluster with a mistake.
func mistaken(t *testing.T, m mistake) *standin.Cluster {
	t.Helper()
	c := standin.RunCluster(t, 3)
	m.make(t, c)
	return c
}

func (m *mistake) findings(t *testing.T, c *standin.Cluster, site string) (list []doctor.Finding, code int) {
	t.Helper()
	if site == "" {
		site = localSite
	}
	args := []string{"--config", configFile(t, c.Consul.Addr(), site)}
	if m.timeout != "" {
		args = append(args, "--timeout", m.timeout)
	}
	return findingsOf(t, args...)
}

// with is localSite with another option.
func with(option string) string {
	return strings.Replace(localSite, "scheme http", "scheme http\n\t\t"+option, 1)
}

// entryOf is the registration of a node of a cluster as Vault makes it, on the node of Consul with a name.
func entryOf(c *standin.Cluster, i int, name string, more ...standin.Opt) *api.ServiceEntry {
	opts := append([]standin.Opt{standin.Address("127.0.0.1"), standin.ServiceAddress("127.0.0.1"), portOf(c.Vaults[i])}, more...)
	if i == 0 {
		return standin.Active(name, opts...)
	}
	return standin.Standby(name, opts...)
}

func three(c *standin.Cluster) []*api.ServiceEntry {
	return []*api.ServiceEntry{entryOf(c, 0, "vault-0"), entryOf(c, 1, "vault-1"), entryOf(c, 2, "vault-2")}
}

func register(c *standin.Cluster, list ...*api.ServiceEntry) { c.Consul.Set("vault", list...) }

// ownAddresses registers each node once, with its own address, as the remedies have it.
func ownAddresses(_ *testing.T, c *standin.Cluster) (site string) {
	register(c, three(c)...)
	c.Vaults[0].SetHealth(0)
	return ""
}

func portText(v *standin.Vault) string {
	_, port, _ := net.SplitHostPort(v.Addr())
	return port
}

// cutAfter makes queries that would wait for longer fail after a time.
func cutAfter(limit time.Duration, code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
		if r.URL.Query().Get("index") == "" || wait < limit {
			return false
		}
		select {
		case <-time.After(limit):
		case <-r.Context().Done():
		}
		http.Error(w, "cut short", code)
		return true
	}
}

// answersAll makes the standby vault-1 answer everything in one way, with a header.
func answersAll(code int, header, body string) func(*testing.T, *standin.Cluster) {
	return func(t *testing.T, c *standin.Cluster) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set(header, "1")
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(server.Close)
		list := three(c)
		list[1].Service.Port = server.Listener.Addr().(*net.TCPAddr).Port
		register(c, list...)
	}
}

// proxyListener makes the standby vault-1 close connections that do not begin with a header of the PROXY protocol.
func proxyListener(t *testing.T, c *standin.Cluster) {
	l := standin.Serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) })
	list := three(c)
	list[1].Service.Port = l.Addr().(*net.TCPAddr).Port
	register(c, list...)
}
