// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Loaded before dynalite, which ends as soon as a client breaks off in the midst of a request, as a Vault does that is
// killed. DynamoDB outlives its clients, and so must what plays it; any other error still ends it.

process.on('uncaughtException', (err) => {
	if (err.code === 'ECONNRESET' && err.message === 'aborted') return;
	console.error(err);
	process.exit(1);
});
