// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package sanitize checks text from other machines before it goes into a URL, and cleans it for log lines.
package sanitize

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Host returns host without brackets if it is an IP address that can be connected to, or a host name in the sense of
// RFC 1123 (with underscores, which the names of Consul's nodes may have). A host from Consul becomes
// part of a URL that clients send their tokens to, so anything that could be read as more than a host is an error.
func Host(host string) (string, error) {
	if host == "" {
		return "", errors.New("no address")
	}
	bare := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		bare = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		switch {
		case ip.Zone() != "":
			return "", fmt.Errorf("address %q has a zone, which no URL can carry to another machine", host)
		case ip.Unmap().IsUnspecified(), ip.Unmap().IsMulticast():
			return "", fmt.Errorf("address %q is not that of one machine", host)
		case bare != host && ip.Is4():
			return "", fmt.Errorf("address %q: brackets are for IPv6", host)
		}
		return bare, nil
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 {
		return "", fmt.Errorf("address %q is longer than a host name can be", host[:64]+"…")
	}
	label := ""
	for label = range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return "", fmt.Errorf("address %q is neither a host name nor an IP address", host)
		}
	}
	// "127.1", "0x7f.0.0.1" or "2130706433" are IPv4 addresses to some clients.
	if strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x") || strings.HasPrefix(label, "0X") {
		return "", fmt.Errorf("address %q ends in a number but is not an IP address", host)
	}
	return host, nil
}

// Loopback reports whether a host that Host has accepted is a loopback address or name.
func Loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// labelBytes are those that a label may have.
const labelBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func validLabel(label string) bool {
	return label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' && strings.Trim(label, labelBytes) == ""
}

// maxLine is how many bytes of text from other machines are kept.
const maxLine = 300

// Line returns text, such as that of an error page, as one short line without control characters.
func Line(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
	if len(text) > maxLine {
		text = text[:maxLine] + "…"
	}
	return strings.ToValidUTF8(text, "")
}

// SecretHeaders are the request headers that must not be logged, in canonical form. Caddy itself redacts only some of them.
var SecretHeaders = []string{"X-Vault-Token", "X-Consul-Token", "X-Vault-Mfa", "Authorization", "Cookie"}

// inlineAuth begins the names of the headers in which OpenBao takes the parameters of a login, each in its own.
// See https://openbao.org/docs/rfcs/inline-auth.
const inlineAuth = "X-Vault-Inline-Auth-Parameter-"

// IsSecretHeader reports whether a request header, by its name in canonical form, must not be logged.
func IsSecretHeader(name string) bool {
	return slices.Contains(SecretHeaders, name) || strings.HasPrefix(name, inlineAuth)
}
