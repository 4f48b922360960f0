// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the choice of the logger for what outlives a config.

package vaultredirect

import (
	"slices"
	"sync"

	"go.uber.org/zap"
)

// loggers are those of the configs that use a view or a watcher now. Log lines go to the latest one: a config that is
// replaced takes its logger's files with it, while views and watchers live on.
type loggers struct {
	mu   sync.Mutex
	list []*zap.Logger
}

func (l *loggers) add(log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, log)
}

func (l *loggers) remove(log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.list, log); i >= 0 {
		l.list = slices.Delete(l.list, i, i+1)
	}
}

func (l *loggers) latest() *zap.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return zap.NewNop()
	}
	return l.list[len(l.list)-1]
}
