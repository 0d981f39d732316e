/** Runs s3rver until it is killed: `node s3rver.ts DIRECTORY BUCKET`. Prints its port. A process of its own, as a real server is. */
import { createRequire } from "node:module";

interface S3rver {
  run(): Promise<{ readonly port: number }>;
}
const S3rver: new (options: object) => S3rver = createRequire(import.meta.url)("@20minutes/s3rver");
const [directory, name] = process.argv.slice(2);
const server = new S3rver({
  directory,
  address: "127.0.0.1",
  port: 0,
  vhostBuckets: false,
  configureBuckets: [{ name }],
});
const { port } = await server.run();
process.stdout.write(`listening on port ${port}\n`);
