import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../src/core/process.ts";

/** A private certificate authority, and a certificate that it signed for `localhost` and 127.0.0.1; all paths are absolute. */
export interface Certificates {
  /** PEM text of the authority's certificate. */
  readonly ca: string;
  readonly caFile: string;
  readonly certificate: string;
  readonly key: string;
}

/** Makes them with openssl in a directory. */
export async function makeCertificates(directory: string): Promise<Certificates> {
  const file = (name: string) => join(directory, name);
  const openssl = async (...args: string[]) => {
    const { exitCode, stderr } = await run("openssl", args, { installHint: "apt-get install openssl" });
    if (exitCode !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`);
  };
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const authority = ["-x509", "-days", "2", "-subj", "/CN=mvm test authority"];
  await openssl("req", ...authority, ...newKey, "-keyout", file("ca.key"), "-out", file("ca.pem"));
  await openssl("req", ...newKey, "-subj", "/CN=localhost", "-keyout", file("server.key"), "-out", file("server.csr"));
  // Virtual-host addressing puts the bucket before the name.
  writeFileSync(file("names"), "subjectAltName=DNS:localhost,DNS:templates.localhost,IP:127.0.0.1\n");
  const signer = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial", "-days", "2"];
  await openssl(
    "x509",
    "-req",
    "-in",
    file("server.csr"),
    ...signer,
    "-extfile",
    file("names"),
    "-out",
    file("server.pem"),
  );
  return {
    ca: readFileSync(file("ca.pem"), "utf8"),
    caFile: file("ca.pem"),
    certificate: file("server.pem"),
    key: file("server.key"),
  };
}
