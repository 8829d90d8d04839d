// Calls BeginLogin and CompleteLogin from TypeScript. Run it against the quickstart:
//
//   npm install
//   npx tsx login.ts 127.0.0.1:50051 demo
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';

const [target, slug] = process.argv.slice(2);
const definition = loader.loadSync('peerpanda/sso/v1/login.proto', { includeDirs: ['../../../proto'], keepCase: true });
const pb = grpc.loadPackageDefinition(definition) as any;
const sso = new pb.peerpanda.sso.v1.LoginService(target, grpc.credentials.createInsecure());
const call = (method: string) => promisify(sso[method].bind(sso)) as (request: object) => Promise<any>;

// At /app/accounts/oidc/{slug}/login/: store the binding in a cookie of this browser, and redirect
// the browser to redirect_url.
const binding = randomBytes(24).toString('base64url');
const begun = await call('BeginLogin')({ slug, return_to: '/reports', browser_binding: binding });
console.log('send the browser to', begun.redirect_url.split('?')[0]);

// At .../login/callback/: pass on the query's parameters and the binding of the cookie. The code is
// made up here, so the service refuses it and says why.
try {
  const done = await call('CompleteLogin')({ slug, code: 'made-up', state: begun.state, browser_binding: binding });
  console.log('welcome', done.identity.email, 'now to', done.return_to);
} catch (error) {
  const { code, details } = error as grpc.ServiceError;
  console.log('refused:', grpc.status[code], details);
}
