// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

const (
	secretPath = "/v1/secret/"
	maxBody    = 32 << 20 // Vault's own default
)

// store keeps one JSON object a path. The zero value is empty and works.
type store struct {
	mu   sync.Mutex
	data map[string]json.RawMessage
}

func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, secretPath)
	method := r.Method
	if list := r.URL.Query().Get("list"); method == http.MethodGet && list != "" && list != "false" {
		method = "LIST"
	}
	switch method {
	case http.MethodPut, http.MethodPost:
		s.write(w, r, path)
	case http.MethodGet:
		s.mu.Lock()
		data, ok := s.data[path]
		s.mu.Unlock()
		if !ok {
			fail(w, http.StatusNotFound)
			return
		}
		secret(w, data)
	case "LIST":
		keys := s.list(path)
		if len(keys) == 0 {
			fail(w, http.StatusNotFound)
			return
		}
		secret(w, map[string]any{"keys": keys})
	case http.MethodDelete:
		s.mu.Lock()
		delete(s.data, path)
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusMethodNotAllowed, "unsupported operation")
	}
}

func (s *store) write(w http.ResponseWriter, r *http.Request, path string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		fail(w, http.StatusRequestEntityTooLarge, "http: request body too large")
		return
	}
	var object map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(body, &object)
	}
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, "failed to parse JSON input: "+err.Error())
		return
	case len(object) == 0:
		fail(w, http.StatusBadRequest, "missing data fields")
		return
	case path == "" || strings.HasSuffix(path, "/"):
		fail(w, http.StatusBadRequest, "cannot write to a path ending in '/'")
		return
	}
	s.mu.Lock()
	if s.data == nil {
		s.data = map[string]json.RawMessage{}
	}
	s.data[path] = body
	s.mu.Unlock()
	if strings.HasPrefix(path, "data/") { // as version 2 of the engine is asked
		secret(w, map[string]any{"version": 1})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// list gives what lies directly under a folder, folders with a slash at the end.
func (s *store) list(folder string) []string {
	if folder != "" && !strings.HasSuffix(folder, "/") {
		folder += "/"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for path := range s.data {
		rest, ok := strings.CutPrefix(path, folder)
		if !ok {
			continue
		}
		if slash := strings.IndexByte(rest, '/'); slash >= 0 {
			rest = rest[:slash+1]
		}
		keys = append(keys, rest)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func secret(w http.ResponseWriter, data any) {
	reply(w, http.StatusOK, map[string]any{
		"request_id": "00000000-0000-0000-0000-000000000000", "lease_id": "", "renewable": false,
		"lease_duration": 2764800, "data": data, "wrap_info": nil, "warnings": nil, "auth": nil,
	})
}
