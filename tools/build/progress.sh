#!/bin/sh
# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

# Builds programs of this module, and says how far it is while much has to be compiled.
#
#   tools/build/progress.sh OUTPUT PACKAGE...      OUTPUT is a file, or a folder with a slash at the end
go=${GO:-go}
output=$1
shift
echo "Building $* ..."
{
	"$go" build -v -trimpath -tags "${TAGS-}" -o "$output" "$@" 2>&1
	echo "exit $?"
} | awk -v list="$go list -tags '${TAGS-}' -deps $* | wc -l" '
	/^exit [0-9]+$/ { code = $2; next }
	/^go: downloading / {
		if (!modules++) { print "  downloading modules"; fflush() }
		next
	}
	/^[A-Za-z0-9_.~\/+-]+$/ {
		if (++compiled == 20) {
			list | getline all
			print "  much has to be compiled: with dependencies, " all + 0 " packages at most. They are cached for the next time."
			print "  Where nothing is cached yet, all of Caddy takes 3 to 5 minutes on two cores."
			fflush()
		}
		if (compiled % 100 == 0) { print "  " compiled " packages compiled"; fflush() }
		next
	}
	{ print; fflush() }
	END { exit code }
'
