// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Queries is what was seen of two queries of a discovery, of which the second one waits for a change.
type Queries struct {
	Asked            bool          // discovery has answered or failed in time
	Took             time.Duration // until it did so
	Failed           discovery.Reason
	FailedWith       string           // text of the failure
	Incomplete       discovery.Reason // set if there was an answer, but an incomplete one
	IncompleteDetail string
	Blocking         Blocking
}

// Blocking is what was seen of a query that waits for a change.
type Blocking struct {
	Wait   time.Duration // that was asked for; 0: there was no such query
	Held   time.Duration // for how long it waited until it was answered, failed, or was no longer watched
	Failed string        // why it failed
}

const (
	// queryLimit is how long an answer may take, as with the engine.
	queryLimit = 10 * time.Second
	// blockingPart is the part of the timeout for which a query that waits for a change is watched.
	blockingPart = 10
)

// query queries a discovery by a source of its own. Where an answer has an index, it queries again, for a change.
func query(ctx context.Context, by discovery.Discoverer, timeout time.Duration) (q Queries) {
	source, err := by.Open()
	if err != nil {
		return Queries{Asked: true, Failed: discovery.ReasonConsulError, FailedWith: failure(by, err)}
	}
	defer source.Close()
	limited, cancel := context.WithTimeout(ctx, min(timeout, queryLimit))
	defer cancel()
	began := time.Now()
	answer, err := source.Query(limited, 0, 0)
	q.Took, q.Asked = time.Since(began), limited.Err() == nil
	q.Incomplete, q.IncompleteDetail = answer.Incomplete, answer.Detail
	if err != nil {
		q.Failed, q.FailedWith = discovery.ReasonConsulError, failure(by, err)
		if known, ok := errors.AsType[*discovery.Error](err); ok {
			q.Failed = known.Reason
		}
	}
	if err != nil || answer.Index == 0 {
		return q
	}
	watched, cancel := context.WithTimeout(ctx, timeout/blockingPart)
	defer cancel()
	began, q.Blocking.Wait = time.Now(), by.MaxWait()
	_, err = source.Query(watched, answer.Index, by.MaxWait())
	q.Blocking.Held = time.Since(began)
	if err != nil && watched.Err() == nil {
		q.Blocking.Failed = failure(by, err)
	}
	return q
}

// failure returns the text of a failed query, without the endpoint, which is shown beside it.
func failure(by discovery.Discoverer, err error) string {
	return strings.TrimPrefix(sanitize.Line(err.Error()), "consul at "+by.Endpoint()+": ")
}
