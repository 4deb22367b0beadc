// oidc-provider, which is certified by the OpenID Foundation, and a few doors for tests.
//
//     node server.mjs '{"clients": [{"client_id": "app", ...}], "ttl": {"AccessToken": 60}}'
//
// Prints its port, then serves until stdin is closed. The API for people is the library's own
// userinfo, `/me`; at `/me?late` nobody is answered before somebody was at `/me`, with a 200. The one
// for programs, `/service`, takes tokens of the client credentials grant.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const { clients, ttl } = JSON.parse(process.argv[2]);
const scope = 'openid offline_access';

process.stdin.resume().on('close', () => process.exit());

// The library asks nothing but this for the time: `/test/advance` lets it pass.
let ahead = 0;
const { now } = Date;
Date.now = () => now() + ahead;

// No connection is closed at the moment at which a client sends on it again.
const server = createServer({ keepAliveTimeout: 0 }).listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

// A client that signs gets its key pair here; `/test/key` hands out the private half.
const kinds = {
  EdDSA: ['ed25519'],
  ES256: ['ec', { namedCurve: 'P-256' }],
  PS256: ['rsa', { modulusLength: 2048 }],
  RS256: ['rsa', { modulusLength: 2048 }],
};
const keys = new Map();
for (const client of clients) {
  if (client.token_endpoint_auth_method !== 'private_key_jwt') continue;
  const alg = client.token_endpoint_auth_signing_alg;
  const pair = generateKeyPairSync(...kinds[alg]);
  keys.set(client.client_id, {
    jwk: { ...pair.privateKey.export({ format: 'jwk' }), alg },
    pem: pair.privateKey.export({ format: 'pem', type: 'pkcs8' }),
  });
  client.jwks = { keys: [{ ...pair.publicKey.export({ format: 'jwk' }), alg }] };
}

const { privateKey } = generateKeyPairSync(...kinds.ES256);
const provider = new Provider(issuer, {
  clients,
  clientDefaults: {
    grant_types: ['authorization_code', 'refresh_token'],
    id_token_signed_response_alg: 'ES256',
    redirect_uris: ['https://app.example.com/callback'],
  },
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
  ],
  cookies: { keys: ['not used'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    revocation: { enabled: true },
  },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  jwks: { keys: [privateKey.export({ format: 'jwk' })] },
  rotateRefreshToken: true,
  ttl,
});

// What the server saw and did, a line each.
const log = [];
const refused = ({ error, error_detail, error_description }) =>
  `${error}: ${error_detail ?? error_description}`;
provider.on('grant.success', ({ oidc }) => log.push(`${oidc.params.grant_type}: granted`));
provider.on('grant.error', ({ oidc }, error) =>
  log.push(`${oidc.params.grant_type}: ${refused(error)}`));
provider.on('grant.revoked', () => log.push('grant revoked'));
provider.on('revocation.error', (_, error) => log.push(`revocation: ${refused(error)}`));
provider.on('userinfo.error', (_, error) => log.push(`api: ${refused(error)}`));
provider.on('server_error', (_, error) => log.push(`server error: ${error.stack}`));

const doors = {
  // What a login with a browser would have brought: a token response.
  async login({ client_id }) {
    const accountId = 'somebody';
    const client = await provider.Client.find(client_id);
    const grant = new provider.Grant({ accountId, clientId: client_id });
    grant.addOIDCScope(scope);
    const grantId = await grant.save();
    const token = { accountId, client, grantId, gty: 'authorization_code', scope };
    const access = new provider.AccessToken(token);
    return {
      access_token: await access.save(),
      expires_in: access.expiration,
      refresh_token: await new provider.RefreshToken(token).save(),
      scope,
      token_type: access.tokenType,
    };
  },

  // The account's owner withdraws what they allowed.
  async revoke_grant({ token }) {
    const { grantId } = await provider.RefreshToken.find(token);
    await (await provider.Grant.find(grantId)).destroy();
    await provider.AccessToken.revokeByGrantId(grantId);
    await provider.RefreshToken.revokeByGrantId(grantId);
  },

  // An administrator takes one token away, of any kind.
  async revoke_token({ token }) {
    const { AccessToken, ClientCredentials, RefreshToken } = provider;
    const kinds = [AccessToken, ClientCredentials, RefreshToken];
    const found = await Promise.all(kinds.map((kind) => kind.find(token)));
    await found.find(Boolean).destroy();
  },

  async key({ client_id }) {
    return keys.get(client_id);
  },

  async advance({ seconds }) {
    ahead += Number(seconds) * 1000;
  },

  async log() {
    return log;
  },
};

async function service({ headers }, response) {
  const token = headers.authorization?.replace(/^Bearer /, '');
  if (await provider.ClientCredentials.find(token)) {
    response.end();
    return;
  }
  log.push('service: invalid_token');
  response.writeHead(401, { 'WWW-Authenticate': 'Bearer error="invalid_token"' }).end();
}

async function door({ pathname, searchParams }, response) {
  try {
    const answer = await doors[pathname.slice('/test/'.length)](Object.fromEntries(searchParams));
    response.end(JSON.stringify(answer ?? null));
  } catch (error) {
    response.writeHead(500).end(error.stack);
  }
}

const library = provider.callback();
const served = once(server, 'served');
server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/test/')) return door(url, response);
  if (url.pathname === '/service') return service(request, response);
  if (url.searchParams.has('late')) await served;
  if (url.pathname === '/me') {
    response.on('finish', () => response.statusCode === 200 && server.emit('served'));
  }
  return library(request, response);
});

console.log(server.address().port);
