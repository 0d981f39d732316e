import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { useDataDirectory } from "../../test/support/data-directory.ts";
import { isMvmError } from "../../test/support/errors.ts";
import { ensureDirectory, writeFileAtomic } from "../core/files.ts";
import { openStore, registryPlace } from "./settings.ts";

const NO_AWS = { AWS_REGION: undefined, AWS_DEFAULT_REGION: undefined };

/** The settings that an environment (without its common beginning) and a config.json give. */
function place(variables: Record<string, string>, registry?: object) {
  using directory = useDataDirectory();
  if (registry) {
    ensureDirectory(directory.paths.dataDir);
    writeFileAtomic(join(directory.paths.dataDir, "config.json"), JSON.stringify({ version: 1, registry }));
  }
  const own = Object.entries(variables).map(([name, value]) => [`MVM_TEMPLATE_REGISTRY_${name}`, value]);
  return registryPlace({ ...directory.ctx, env: { ...NO_AWS, ...Object.fromEntries(own) } });
}

function s3(variables: Record<string, string>, registry?: object) {
  const found = place(variables, registry);
  assert.equal(found.kind, "s3");
  return found.kind === "s3" ? found.options : assert.fail();
}

const MINIMAL = { ENDPOINT: "https://s3.example.com", BUCKET: "b-1", ACCESS_KEY_ID: "id", SECRET_ACCESS_KEY: "secret" };

describe("registry settings", () => {
  test("a directory", async () => {
    assert.deepEqual(place({ ENDPOINT: "file:///srv/my%20templates" }), {
      kind: "directory",
      root: "/srv/my templates",
    });
    using directory = useDataDirectory();
    const env = { MVM_TEMPLATE_REGISTRY_ENDPOINT: "file:///srv/templates" };
    assert.equal((await openStore({ ...directory.ctx, env })).description, "/srv/templates");
  });

  test("S3: what is not said has a default", async () => {
    const { endpoint, bucket, region, prefix, addressing, credentials, ca } = s3(MINIMAL);
    assert.equal(endpoint.href, "https://s3.example.com/");
    assert.deepEqual([bucket, region, prefix, addressing, ca], ["b-1", "us-east-1", "", "path", undefined]);
    assert.deepEqual(await credentials(), { accessKeyId: "id", secretAccessKey: "secret", sessionToken: undefined });
  });

  test("the environment comes before config.json, and credentials are never mixed", async () => {
    const stored = {
      endpoint: "http://stored:9000",
      bucket: "stored",
      region: "eu-1",
      prefix: "/team/a/",
      accessKeyId: "stored-id",
      secretAccessKey: "stored-secret",
      sessionToken: "stored-token",
    };
    const mixed = s3({ BUCKET: "given", ACCESS_KEY_ID: "id", SECRET_ACCESS_KEY: "secret" }, stored);
    assert.equal(mixed.endpoint.host, "stored:9000");
    assert.deepEqual([mixed.bucket, mixed.region, mixed.prefix], ["given", "eu-1", "team/a"]);
    assert.deepEqual(await mixed.credentials(), {
      accessKeyId: "id",
      secretAccessKey: "secret",
      sessionToken: undefined,
    });
    assert.equal((await s3({}, stored).credentials()).sessionToken, "stored-token");
    for (const part of ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"])
      assert.throws(() => s3({ [part]: "given" }, stored), isMvmError("REGISTRY_NOT_CONFIGURED"), part);
  });

  test("AWS has the bucket in the host's name", () => {
    const aws = { ...MINIMAL, ENDPOINT: "https://s3.eu-central-1.amazonaws.com" };
    assert.equal(s3(aws).addressing, "virtual-host");
    assert.equal(s3({ ...aws, BUCKET: "with.dots" }).addressing, "path");
    assert.equal(s3({ ...aws, ADDRESSING: "path" }).addressing, "path");
  });

  test("nothing configured: the shortest way on", () => {
    assert.throws(
      () => place({}),
      (error) => {
        assert.ok(isMvmError("REGISTRY_NOT_CONFIGURED")(error));
        assert.match(String((error as { hint?: string }).hint), /export MVM_TEMPLATE_REGISTRY_ENDPOINT=file:\/\//);
        return true;
      },
    );
    assert.throws(() => place({ ENDPOINT: "https://s3.example.com" }), isMvmError("REGISTRY_NOT_CONFIGURED"));
  });

  test("what can't be is refused, and no secret repeated", () => {
    const wrong: Record<string, string>[] = [
      { ENDPOINT: "s3.example.com" },
      { ENDPOINT: "ftp://s3.example.com" },
      { ENDPOINT: "https://id:the-secret@s3.example.com" },
      { ENDPOINT: "https://s3.example.com/?X-Amz-Signature=the-secret" },
      { ENDPOINT: "https://s3.example.com/a%0ab" },
      { ENDPOINT: "file://srv/templates" },
      { ENDPOINT: "file:///srv/a%2fb" },
      { BUCKET: "../b" },
      { BUCKET: "b/c" },
      { PREFIX: "a//b" },
      { PREFIX: "../a" },
      { PREFIX: "a b" },
      { ADDRESSING: "host" },
      { REGION: "eu west/1" },
      { CA_FILE: "ca.pem" },
      { CA_FILE: "/no/such/file" },
      { CA_FILE: import.meta.filename },
    ];
    for (const variables of wrong) {
      assert.throws(
        () => place({ ...MINIMAL, ...variables }),
        (error) => isMvmError("REGISTRY_SETTINGS")(error) && !inspect(error).includes("the-secret"),
        JSON.stringify(variables),
      );
    }
  });

  test("a line break at a variable's end is forgiven; a character that no key can have is said, and the key is not", async () => {
    const copied = s3({ ...MINIMAL, BUCKET: "b-1\n", SECRET_ACCESS_KEY: "secret\n" });
    assert.equal(copied.bucket, "b-1");
    assert.equal((await copied.credentials()).secretAccessKey, "secret");
    for (const [name, value] of [
      ["ACCESS_KEY_ID", "the-secret b"],
      ["ACCESS_KEY_ID", "the-secret,b"],
      ["SECRET_ACCESS_KEY", "the-secret\nb"],
      ["SESSION_TOKEN", "the-secret\nb"],
      ["SESSION_TOKEN", "the-secret\u20ac"],
    ] as const) {
      const credentials = s3({ ...MINIMAL, [name]: value }).credentials();
      const said = (error: unknown) => isMvmError("REGISTRY_SETTINGS")(error) && !inspect(error).includes("the-secret");
      await assert.rejects(credentials, said, name);
    }
  });

  test("what is wrong in config.json is named with what is allowed, and never shown", () => {
    const wrong: [registry: object, words: RegExp][] = [
      [{ endpiont: "file:///x" }, /config\.json.*registry\.endpiont: there is no such setting.* endpoint, bucket,/s],
      [{ secretAccessKey: 8_675_309 }, /registry\.secretAccessKey: .*string/],
      [{ secretAccessKey: "8675309".repeat(1000) }, /registry\.secretAccessKey: .*4096/],
      [{ addressing: "host" }, /registry\.addressing: .*"path" or "virtual-host"/],
      [{ trustedKeys: "8675309" }, /registry\.trustedKeys: .*list/],
      [{ trustedKeys: ["8675309"] }, /registry\.trustedKeys\.0: .*public key/],
    ];
    for (const [registry, words] of wrong) {
      assert.throws(
        () => place({}, registry),
        (error) => {
          assert.ok(isMvmError("CORRUPT_FILE")(error));
          assert.match(String(error), words);
          assert.doesNotMatch(inspect(error), /8675309/);
          return true;
        },
      );
    }
  });

  test("without credentials, AWS's default ones are taken, or their absence explained", async () => {
    using directory = useDataDirectory();
    const { ENDPOINT, BUCKET } = MINIMAL;
    const { credentials } = s3({ ENDPOINT, BUCKET });
    const file = join(directory.root, "credentials");
    writeFileSync(file, "[default]\naws_access_key_id = from-file\naws_secret_access_key = of-file\n");
    const saved = { ...process.env };
    try {
      for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name];
      Object.assign(process.env, {
        AWS_EC2_METADATA_DISABLED: "true",
        AWS_CONFIG_FILE: "/dev/null",
        AWS_SHARED_CREDENTIALS_FILE: file,
      });
      assert.equal((await credentials()).secretAccessKey, "of-file");
      process.env["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null";
      const none = s3({ ENDPOINT, BUCKET }).credentials();
      await assert.rejects(none, isMvmError("REGISTRY_NOT_CONFIGURED"));
    } finally {
      process.env = saved;
    }
  });
});
