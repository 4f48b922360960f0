// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Health is what is looked at of a site's health document.
type Health struct {
	Status int `json:"-"` // of the answer

	Healthy     bool       `json:"healthy"`
	ActiveVault *string    `json:"active_vault"`
	Reason      string     `json:"reason"`
	Detail      string     `json:"detail"`
	RedirectTo  string     `json:"redirect_url"`
	StaleSince  *time.Time `json:"stale_since"`
	Candidates  int        `json:"candidates"`
}

// HealthPath is where the document is by default.
const HealthPath = "/vault-redirector-health"

// healthClient follows no redirect and keeps no connection.
var healthClient = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ReadHealth asks a site (http://host:port) for its health document.
func ReadHealth(ctx context.Context, site string) (h Health, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, site+HealthPath, nil)
	if err != nil {
		return h, err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return h, fmt.Errorf("health of %s: %w", site, err)
	}
	h.Status = resp.StatusCode
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("health of %s: status %d: %w: %.200s", site, h.Status, err, text)
	}
	return h, nil
}
