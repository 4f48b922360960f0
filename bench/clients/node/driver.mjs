// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Runs one of Node's clients, whose name is the argument. Reads one request a line, and answers each by one line. See
// driver.go. NODE_EXTRA_CA_CERTS makes every client trust the private authority.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import https from 'node:https';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const { VAULT_ADDR: addr, VAULT_TOKEN: token, CLIENT_CERT, CLIENT_KEY } = process.env;
const cert = readFileSync(CLIENT_CERT), key = readFileSync(CLIENT_KEY);
const lacks = { lacks: true };
const secret = (name) => 'secret/data/' + name;

// http makes a client of send(method, path, {body, headers, cert}), which returns Vault's answer or throws.
const http = (version, send) => ({
	version,
	write: (q) => send('PUT', secret(q.name), { body: { data: { value: q.value } }, headers: { 'X-Vault-Token': token } }).then(() => ''),
	read: async (q) => (await send('GET', secret(q.name), { headers: { 'X-Vault-Token': token } })).data.data.value,
	list: async (q) => (await send('LIST', 'secret/metadata/' + q.name, { headers: { 'X-Vault-Token': token } })).data.keys.join(),
	delete: (q) => send('DELETE', secret(q.name), { headers: { 'X-Vault-Token': token } }).then(() => ''),
	wrap: async (q) => {
		const wrapped = await send('GET', secret(q.name), { headers: { 'X-Vault-Token': token, 'X-Vault-Wrap-TTL': '60s' } });
		const unwrapped = await send('POST', 'sys/wrapping/unwrap', { body: {}, headers: { 'X-Vault-Token': wrapped.wrap_info.token } });
		return unwrapped.data.data.value;
	},
	userpass: async (q) => (await send('POST', 'auth/userpass/login/' + q.user, { body: { password: q.password } })).auth.client_token,
	approle: async (q) => (await send('POST', 'auth/approle/login', { body: { role_id: q.role_id, secret_id: q.secret_id } })).auth.client_token,
	cert: async () => (await send('POST', 'auth/cert/login', { body: { name: 'web' }, cert: true })).auth.client_token,
});

// nodeVault is node-vault; the options of releases before 0.11, which use another library, have another form.
const nodeVault = (name, certOptions, options) => {
	const make = require(name);
	const client = make({ endpoint: addr, token, requestOptions: options });
	const anonymous = (more) => {
		const c = make({ endpoint: addr, requestOptions: { ...options, ...more } });
		c.token = undefined;
		return c;
	};
	return {
		version: require(name + '/package.json').version,
		write: (q) => client.write(secret(q.name), { data: { value: q.value } }).then(() => ''),
		read: async (q) => (await client.read(secret(q.name))).data.data.value,
		list: async (q) => (await client.list('secret/metadata/' + q.name)).data.keys.join(),
		delete: (q) => client.delete(secret(q.name)).then(() => ''),
		wrap: async (q) => {
			const wrapped = await client.read(secret(q.name), { headers: { 'X-Vault-Wrap-TTL': '60s' } });
			return (await client.unwrap({ token: wrapped.wrap_info.token })).data.data.value;
		},
		userpass: async (q) => (await anonymous().userpassLogin({ username: q.user, password: q.password })).auth.client_token,
		approle: async (q) => (await anonymous().approleLogin({ role_id: q.role_id, secret_id: q.secret_id })).auth.client_token,
		cert: async () => (await anonymous(certOptions).write('auth/cert/login', { name: 'web' })).auth.client_token,
	};
};

const clients = {
	'node-vault': () => nodeVault('node-vault', { cert, key }),
	'node-vault-0.10': () => nodeVault('node-vault-0.10', { agentOptions: { cert, key } }),
	'node-vault-0.10 followAllRedirects': () => nodeVault('node-vault-0.10', { agentOptions: { cert, key } }, { followAllRedirects: true }),
	'@litehex/node-vault': async () => {
		const { Client } = await import('@litehex/node-vault');
		const { Agent, fetch: undiciFetch } = await import('undici');
		const client = new Client({ endpoint: addr, token });
		const must = async (promise) => {
			const { data, error } = await promise;
			if (error) throw error;
			return data;
		};
		const anonymous = (more) => {
			const c = new Client({ endpoint: addr, ...more });
			c.token = undefined;
			return c;
		};
		const dispatcher = new Agent({ connect: { cert, key, ca: readFileSync(process.env.VAULT_CACERT) } });
		return {
			version: versionOf('@litehex/node-vault'),
			write: (q) => must(client.kv2.write({ mountPath: 'secret', path: q.name, data: { value: q.value } })).then(() => ''),
			read: async (q) => (await must(client.kv2.read({ mountPath: 'secret', path: q.name }))).data.data.value,
			list: async (q) => (await must(client.kv2.list({ mountPath: 'secret', path: q.name }))).data.keys.join(),
			delete: (q) => must(client.kv2.deleteLatest({ mountPath: 'secret', path: q.name })).then(() => ''),
			wrap: async (q) => {
				const wrapped = await must(client.read({ path: secret(q.name) }, { headers: { 'X-Vault-Token': token, 'X-Vault-Wrap-TTL': '60s' } }));
				return (await must(client.write({ path: 'sys/wrapping/unwrap', data: { token: wrapped.wrap_info.token } }))).data.data.value;
			},
			userpass: async (q) => (await must(anonymous().write({ path: 'auth/userpass/login/' + q.user, data: { password: q.password } }))).auth.client_token,
			approle: async (q) =>
				(await must(anonymous().write({ path: 'auth/approle/login', data: { role_id: q.role_id, secret_id: q.secret_id } }))).auth.client_token,
			cert: async () => {
				const c = anonymous({ fetcher: (url, init) => undiciFetch(url, { ...init, dispatcher }) });
				return (await must(c.write({ path: 'auth/cert/login', data: { name: 'web' } }))).auth.client_token;
			},
		};
	},
	'node-vault-client': () => {
		const VaultClient = require('node-vault-client');
		const make = (auth) => new VaultClient({ api: { url: addr + '/' }, auth, logger: false });
		const client = make({ type: 'token', config: { token } });
		return {
			version: require('node-vault-client/package.json').version,
			write: (q) => client.write(secret(q.name), { data: { value: q.value } }).then(() => ''),
			read: async (q) => (await client.read(secret(q.name))).getData().data.value,
			list: async (q) => (await client.list('secret/metadata/' + q.name)).getData().keys.join(),
			delete: () => lacks,
			wrap: () => lacks,
			userpass: () => lacks,
			approle: async (q) => {
				const own = make({ type: 'appRole', config: { role_id: q.role_id, secret_id: q.secret_id } });
				const seen = await own.read('auth/token/lookup-self'); // this client logs in when it needs a token
				return seen.getData().id;
			},
			cert: () => lacks,
		};
	},
	axios: () => {
		const axios = require('axios');
		return http(require('axios/package.json').version, async (method, path, o) => {
			const httpsAgent = o.cert ? new https.Agent({ cert, key }) : undefined;
			return (await axios.request({ method, url: `${addr}/v1/${path}`, data: o.body, headers: o.headers, httpsAgent })).data;
		});
	},
	got: async () => {
		const { got } = await import('got');
		return http(versionOf('got'), async (method, path, o) => {
			const tls = o.cert ? { certificate: cert, key } : {};
			const answer = await got(`${addr}/v1/${path}`, { method, json: o.body, headers: o.headers, https: tls, retry: { limit: 0 } });
			return answer.body ? JSON.parse(answer.body) : {};
		});
	},
	fetch: async () => {
		const { Agent, fetch: undiciFetch } = await import('undici');
		const dispatcher = new Agent({ connect: { cert, key, ca: readFileSync(process.env.VAULT_CACERT) } });
		// The fetch that is built in takes no certificate but through a dispatcher of the library that it is made of.
		return http(process.version.slice(1), async (method, path, o) => {
			const [f, more] = o.cert ? [undiciFetch, { dispatcher }] : [fetch, {}];
			const answer = await f(`${addr}/v1/${path}`, { method, headers: o.headers, body: o.body && JSON.stringify(o.body), ...more });
			const text = await answer.text();
			if (!answer.ok) throw new Error(`status ${answer.status}: ${text}`);
			return text ? JSON.parse(text) : {};
		});
	},
};

// versionOf is for packages that do not export their package.json.
function versionOf(name) {
	return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n');

let client;
try {
	client = await clients[process.argv[2]]();
} catch (e) {
	say({ missing: String(e) });
	process.exit(0);
}
say({ version: client.version });
for await (const line of createInterface({ input: process.stdin })) {
	const q = JSON.parse(line);
	try {
		const value = await client[q.op === 'big' ? 'write' : q.op](q);
		say(value === lacks ? lacks : { value });
	} catch (e) {
		const cause = e.cause ? ` (${e.cause})` : '';
		const body = e.response?.body ?? e.response?.data;
		say({ error: `${e}${cause}${body ? ' ' + JSON.stringify(body) : ''}` });
	}
}
