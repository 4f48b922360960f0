// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package match parses and loads the request matchers of an option.
package match

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Parse parses a matcher, of which d is at the name, and adds it to the sets of an option.
func Parse(d *caddyfile.Dispenser, option string, sets *caddyhttp.RawMatcherSets) error {
	name := d.Val()
	module, err := caddy.GetModule("http.matchers." + name)
	if err != nil {
		return d.Errf("%s: %q is not one of Caddy's request matchers, such as path or header", option, name)
	}
	matcher, ok := module.New().(caddyfile.Unmarshaler)
	if !ok {
		return d.Errf("%s: the matcher %s cannot be used in a Caddyfile", option, name)
	}
	if err := matcher.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	if isEmpty(matcher) {
		return d.Errf("%s: %s: arguments are missing: it would match nothing", option, name)
	}
	set := caddy.ModuleMap{name: caddyconfig.JSON(matcher, nil)}
	for _, other := range *sets {
		if Same(other, set) {
			return d.Errf("%s: this matcher %s is given twice: remove one", option, name)
		}
	}
	*sets = append(*sets, set)
	return nil
}

// Load loads the matchers of an option, which are in its field MatchersRaw.
func Load(ctx caddy.Context, option any, raw caddyhttp.RawMatcherSets) (sets caddyhttp.MatcherSets, err error) {
	for i, set := range raw {
		for k, other := range raw[:i] {
			if Same(other, set) {
				return nil, fmt.Errorf("match: sets %d and %d are the same: remove one", k+1, i+1)
			}
		}
	}
	modules, err := ctx.LoadModule(option, "MatchersRaw")
	if err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	if err := sets.FromInterface(modules); err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	for i, set := range sets {
		for _, m := range set {
			if isEmpty(m) {
				return nil, fmt.Errorf("match: %s in set %d is empty: it would match nothing", caddy.GetModuleName(m), i+1)
			}
		}
	}
	return sets, nil
}

// Same reports whether two sets have the same matchers.
func Same(a, b caddy.ModuleMap) bool {
	return bytes.Equal(caddyconfig.JSON(a, nil), caddyconfig.JSON(b, nil))
}

// isEmpty reports whether a matcher is a list without an element, such as a path without one, which matches nothing, or was given
// nothing at all.
func isEmpty(matcher any) bool {
	v := reflect.Indirect(reflect.ValueOf(matcher))
	return v.Kind() == reflect.Slice && v.Len() == 0 || v.Kind() == reflect.Map && v.IsNil()
}

// OnlyByPath returns an error if whether a request matches depends on more than its path and method.
func OnlyByPath(sets caddyhttp.MatcherSets) error {
	for _, set := range sets {
		for _, m := range set {
			switch m := m.(type) {
			case *caddyhttp.MatchMethod:
			case *caddyhttp.MatchPath:
				for _, pattern := range *m {
					if strings.Contains(pattern, "{") {
						return fmt.Errorf("the path %q has a placeholder", pattern)
					}
				}
			default:
				return fmt.Errorf("the matcher %s depends on more than path and method", caddy.GetModuleName(m))
			}
		}
	}
	return nil
}
