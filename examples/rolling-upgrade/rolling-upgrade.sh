#!/bin/sh
# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

# Rolling upgrade of a Vault cluster behind vault_redirect: takes the nodes out one after the other, standbys first and the
# active one last, and loses no request but those that are under way at the active node at that moment.
#
#   VAULT_TOKEN=... sh rolling-upgrade.sh https://vault-1:8200 https://vault-2:8200 https://vault-3:8200
#
# For each node it
#   1. waits until every other node is unsealed, and one of them or this one is active;
#   2. if it is the active one: asks it to step down, and waits until another one is active. New requests are held by the
#      redirectors meanwhile. A stop alone would refuse the requests that come between the end of its listener and the
#      moment at which the redirectors notice;
#   3. stops it by VAULT_STOP_COMMAND;
#   4. starts it by VAULT_START_COMMAND, the new version;
#   5. waits until it answers, sealed or, with auto-unseal, unsealed already;
#   6. unseals it by VAULT_UNSEAL_COMMAND or, without one, waits until you have done so by hand;
#   7. waits until it is a healthy standby, and as long as Vault needs to give it its vote again.
#
# Settings, from the environment:
#   VAULT_TOKEN            may step down: "update" with "sudo" on sys/step-down. Not on the command line, where others see it.
#   VAULT_STOP_COMMAND     run by sh with the node in $VAULT_NODE (its URL) and $VAULT_NODE_HOST.
#                          Default: ssh "$VAULT_NODE_HOST" sudo systemctl stop vault
#   VAULT_START_COMMAND    the same. Default: ssh "$VAULT_NODE_HOST" sudo systemctl start vault
#   VAULT_UNSEAL_COMMAND   the same. Default: none, you do it by hand. Keys do not belong in this file.
#   VAULT_CACERT           file of the CA of the nodes' certificates.
#   VAULT_WAIT             seconds that each wait may last, by hand or not. Default: 600
#   VAULT_SETTLE           seconds to wait after each node. Default: 15. A node of a raft cluster that comes back must have
#                          caught up before the next one may go.
#
# It ends with an error, and touches no further node, as soon as something is not as it should be. Take a snapshot before:
# vault operator raft snapshot save, addressed to the active node itself and not to the redirector.

set -eu

: "${VAULT_TOKEN:?set VAULT_TOKEN to a token that may call sys/step-down}"
wait_for=${VAULT_WAIT:-600}
settle=${VAULT_SETTLE:-15}
stop_command=${VAULT_STOP_COMMAND:-'ssh "$VAULT_NODE_HOST" sudo systemctl stop vault'}
start_command=${VAULT_START_COMMAND:-'ssh "$VAULT_NODE_HOST" sudo systemctl start vault'}
unseal_command=${VAULT_UNSEAL_COMMAND:-}

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() {
	say "$*" >&2
	exit 1
}

# curl_vault is curl with what all calls have in common.
curl_vault() {
	curl --silent --show-error --max-time 5 --noproxy '*' ${VAULT_CACERT:+--cacert "$VAULT_CACERT"} "$@"
}

# code prints the status of a node's health: 200 active, 429 standby, 473 performance standby, 501 not initialised,
# 503 sealed, 000 no answer.
# https://developer.hashicorp.com/vault/api-docs/system/health
code() { curl_vault --output /dev/null --write-out '%{http_code}' "$1/v1/sys/health" 2>/dev/null || :; }

# one_of tells whether the first argument is among the others.
one_of() {
	wanted=$1
	shift
	for each in "$@"; do
		if [ "$each" = "$wanted" ]; then return 0; fi
	done
	return 1
}

# await NODE CODE... waits until the node's health is one of the codes.
await() {
	node=$1
	shift
	left=$wait_for
	until one_of "$(code "$node")" "$@"; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || fail "$node: health is $(code "$node"), not one of: $*"
		sleep 1
	done
}

# active prints the node that is active, or nothing.
active() {
	for each_node in $nodes; do
		if [ "$(code "$each_node")" = 200 ]; then
			printf '%s' "$each_node"
			return
		fi
	done
}

# await_active [NODE] waits until a node is active that is not NODE.
await_active() {
	left=$wait_for
	while now=$(active) && { [ -z "$now" ] || [ "$now" = "${1:-}" ]; }; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || fail "no active node${1:+ but $1}"
		sleep 1
	done
}

# run COMMAND NODE runs one of the settings' commands.
run() {
	host=${2#*://}
	VAULT_NODE=$2 VAULT_NODE_HOST=${host%%:*} sh -c "$1" || fail "$2: this command failed: $1"
}

# step_down gives the role of a node to another. The token is passed by standard input, for the list of processes is no secret.
step_down() {
	printf 'header = "X-Vault-Token: %s"\n' "$VAULT_TOKEN" |
		curl_vault --config - --fail --output /dev/null --request PUT "$1/v1/sys/step-down" || fail "$1: it did not step down"
	await_active "$1"
	await "$1" 429 473
	say "$1: stepped down, $(active) is active"
}

# replace takes one node out and in again.
replace() {
	for other in $nodes; do await "$other" 200 429 473; done
	await_active
	if [ "$(code "$1")" = 200 ]; then step_down "$1"; fi
	say "$1: stop"
	run "$stop_command" "$1"
	await "$1" 000
	say "$1: start"
	run "$start_command" "$1"
	await "$1" 503 200 429 473
	if [ "$(code "$1")" = 503 ]; then
		if [ -n "$unseal_command" ]; then
			run "$unseal_command" "$1"
		else
			say "$1: it is sealed. Unseal it by hand, addressed directly: vault operator unseal -address=$1"
		fi
	fi
	await "$1" 429 473 200
	say "$1: unsealed"
	sleep "$settle"
}

[ $# -ge 2 ] || fail "usage: VAULT_TOKEN=... sh $0 <url of a node> <url of a node>..."
nodes=$*
await_active
last=$(active)
one_of "$last" "$@" || fail "none of the nodes is active"
for target in "$@"; do
	if [ "$target" != "$last" ]; then replace "$target"; fi
done
replace "$last"
say "done: $(active) is active"
