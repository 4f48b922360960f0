// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func consulPolicy(t *testing.T, text string) {
	rules := regexp.MustCompile(`(?m)^(\w+) "(.*)" \{\s*policy = "(\w+)"\s*\}$`).FindAllStringSubmatch(text, -1)
	var got []string
	for _, r := range rules {
		got = append(got, r[1]+" "+quote(r[2])+" "+r[3])
	}
	if want := []string{`service "vault" read`, `node_prefix "" read`}; !slices.Equal(got, want) {
		t.Errorf("rules %q, want %q and no more", got, want)
	}
}

func vaultService(t *testing.T, text string) {
	var file struct {
		Service struct {
			Name, Address string
			Port          int
			Tags          []string
			Check         struct {
				ID, Name, Notes, HTTP, Interval, Timeout string
				ServerName                               string `json:"tls_server_name"`
			}
		}
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Service
	if u, err := url.Parse(s.Check.HTTP); err != nil || u.Path != "/v1/sys/health" {
		t.Errorf("the check asks %q: %v", s.Check.HTTP, err)
	}
	if s.Name != "vault" || s.Port == 0 || s.Check.ID != "api" || len(s.Tags) > 0 {
		t.Errorf("service %+v: the check api of the service vault is to mark the active node, tags are not", s)
	}
	if s.Address == "" || s.Address != s.Check.ServerName || s.Check.Notes == "" {
		t.Errorf("service %+v: redirects lead to its address, which is a name in the certificate; a note says so", s)
	}
	for _, text := range []string{s.Check.Interval, s.Check.Timeout} {
		if _, err := time.ParseDuration(text); err != nil {
			t.Error(err)
		}
	}
}

func redirectorService(t *testing.T, text string) {
	var file struct {
		Service struct {
			Name, Address string
			Port          int
			Check         struct {
				ID, Name, Notes, HTTP, Interval, Timeout string
				ServerName                               string `json:"tls_server_name"`
				SkipVerify                               bool   `json:"tls_skip_verify"`
			}
		}
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Service
	if u, err := url.Parse(s.Check.HTTP); err != nil || u.Path != "/vault-redirector-health/ready" {
		t.Errorf("the check asks %q: %v", s.Check.HTTP, err)
	}
	if s.Check.ServerName != s.Name+".service.consul" || s.Check.Notes == "" {
		t.Errorf("service %+v: the certificate has the name that clients look up", s)
	}
	for _, text := range []string{s.Check.Interval, s.Check.Timeout} {
		if _, err := time.ParseDuration(text); err != nil {
			t.Error(err)
		}
	}
}
