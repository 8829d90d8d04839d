// The certified OpenID Provider `oidc-provider`, with its own login, consent and logout pages (devInteractions), for the
// tests. Its argument is a JSON array of clients. Prints its issuer once it listens.
import http from 'node:http';
import Provider from 'oidc-provider';

const clients = JSON.parse(process.argv[2]);
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['given_name', 'family_name', 'name'] },
    // The profile is returned by UserInfo only, as OIDC Core 5.4 specifies for the code flow.
    conformIdTokenClaims: true,
    pkce: { required: () => true },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id, email: `${id}@example.com`, email_verified: true, given_name: id, family_name: 'Provider', name: `${id} Provider`,
      }),
    }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
