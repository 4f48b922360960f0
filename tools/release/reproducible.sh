#!/bin/sh
# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

# Builds Caddy from two clones of this repository, at the commit that is checked out, in folders of different names, and
# compares. COLD=1 gives each build a cache of its own, so that nothing at all is shared; it takes minutes.
set -eu
go=${GO:-go}
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
for name in a another/and/a/longer/name; do
	git clone --quiet --no-hardlinks . "$dir/$name"
	(
		cd "$dir/$name"
		git checkout --quiet --detach "$(git -C "$OLDPWD" rev-parse HEAD)"
		if [ "${COLD:-}" = 1 ]; then
			GOCACHE=$dir/cache.$(basename "$name")
			export GOCACHE
		fi
		CGO_ENABLED=0 GOFLAGS= "$go" build -trimpath -buildvcs=true -tags "${TAGS-}" -o caddy ./cmd/caddy
	)
done
sha256sum "$dir/a/caddy" "$dir/another/and/a/longer/name/caddy" | sed "s|$dir/||"
cmp "$dir/a/caddy" "$dir/another/and/a/longer/name/caddy"
"$go" version -m "$dir/a/caddy" | grep -E 'vcs\.(revision|modified)|	mod	'
if grep -q -a "$dir" "$dir/a/caddy"; then
	echo "the program names the folder in which it was built" >&2
	exit 1
fi
echo "the same, byte for byte"
