// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestCheckCertificates(t *testing.T) {
	noConsulEnv(t)
	ca := certs.New("test CA")
	file := writeFile(t, t.TempDir(), "ca.pem", string(ca.CertPEM()))
	issue := func(host string, left time.Duration) *tls.Config {
		return ca.Issue(time.Now().Add(-100*time.Hour), time.Now().Add(left), "node", host).Server()
	}
	for _, row := range []struct {
		name           string
		server         *tls.Config
		trusted        bool
		code           int
		severity       doctor.Severity
		detail, remedy string
	}{
		{"good", issue("127.0.0.1", 90*24*time.Hour), true, 0, doctor.OK, "trusted, for 127.0.0.1, 89 days left", ""},
		{"soon over", issue("127.0.0.1", 10*24*time.Hour), true, 0, doctor.Warning, "9 days left", "renew"},
		{"expired", issue("127.0.0.1", -time.Hour), true, 2, doctor.Wrong, "expired on", "renew"},
		{"other name", issue("vault.test", 90*24*time.Hour), true, 2, doctor.Wrong, "not for 127.0.0.1 but for vault.test", "issue it for 127.0.0.1"},
		{"untrusted", issue("127.0.0.1", 90*24*time.Hour), false, 0, doctor.Warning, "not trusted here", "probe { tls { ca FILE } }"},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t)
			vault := standin.RunVaultTLS(t, "vault-0", row.server)
			consul.Set("vault", standin.Active("vault-0", standin.Address("127.0.0.1"), portOf(vault)))
			probe := ""
			if row.trusted {
				probe = "probe {\n\t\t\ttls {\n\t\t\t\tca " + file + "\n\t\t\t}\n\t\t}"
			}
			list, code := findingsOf(t, "--config", configFile(t, consul.Addr(), strings.Replace(localSite, "scheme http", probe, 1)))
			wantFinding(t, list, "certificate", row.severity, "vault-0", row.detail, row.remedy)
			if code != row.code {
				t.Errorf("exit %d, want %d:\n%s", code, row.code, dump(list))
			}
			if !row.trusted {
				wantFinding(t, list, "probe", doctor.Warning, "vault", "liveness only (certificate not trusted)", "probe { tls { ca FILE } }")
			}
			// To what speaks https, redirects by http are of no use.
			list, _ = findingsOf(t, "--scheme", "http", consul.Addr())
			wantFinding(t, list, "scheme", doctor.Wrong, "vault-0", "the node answers https", "--scheme https")
		})
	}
}
