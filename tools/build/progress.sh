#!/bin/sh
# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

# Builds programs of this module, and says how far it is while much has to be compiled. When little has, it says nothing.
#
#   tools/build/progress.sh OUTPUT PACKAGE...      OUTPUT is a file, or a folder with a slash at the end
go=${GO:-go}
output=$1
shift
{
	"$go" build -v -trimpath -tags "${TAGS-}" -o "$output" "$@" 2>&1
	echo "exit $?"
} | awk -v packages="$*" -v list="$go list -tags '${TAGS-}' -deps $* | wc -l" '
	/^exit [0-9]+$/ { code = $2; next }
	/^go: downloading / {
		if (!modules++) { print "Downloading the modules that " packages " needs ..."; fflush() }
		next
	}
	/^[A-Za-z0-9_.~\/+-]+$/ {
		if (++compiled == 20) {
			list | getline all
			print "Compiling " packages ": with dependencies " all + 0 " packages, which are cached for the next time."
			print "Where nothing is cached yet, all of Caddy takes 3 to 5 minutes on two cores."
			fflush()
		}
		if (compiled % 100 == 0) { print "  " compiled " packages compiled"; fflush() }
		next
	}
	{ print; fflush() }
	END { exit code }
'
