import { resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { text as readAll } from "node:stream/consumers";
import { configPath, type RegistrySettings, readConfig, writeConfig } from "../../../core/config.ts";
import { MvmError } from "../../../core/errors.ts";
import { checkRegistry } from "../../../registry/check-registry.ts";
import { endpointOf, variablesSet } from "../../../registry/settings.ts";
import type { Cli } from "../../cli.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Options, type Page, textOption } from "../../page.ts";
import { describeChecks } from "./status.ts";

export const page: Page = {
  summary: "Configure the registry, after trying it",
  description:
    "Writes what is given into config.json, which then only its owner can read, if everything that a push and a pull need works. On a terminal, asks for what is missing. Without an access key, AWS's default chain of credentials is used.",
  define: (command) =>
    command
      .argument("[endpoint]", "https://…, http://… or file:///…")
      .option("--bucket <name>", "the bucket, which has to be there")
      .option("--region <region>", "the bucket's region, where the server has them")
      .option("--prefix <prefix>", "what every key begins with")
      .option("--addressing <style>", "path (host/bucket/key) or virtual-host (bucket.host/key)")
      .option("--access-key-id <id>", "whose credentials")
      .option("--secret-stdin", "read the secret access key from standard input")
      .option("--ca-file <file>", "PEM file of the authority that signed the server's certificate"),
  examples: [
    "mvmctl registry login file:///srv/templates",
    "mvmctl registry login https://s3.example.com --bucket templates --access-key-id me",
    "cat secret | mvmctl registry login https://s3.example.com --bucket templates --access-key-id me --secret-stdin",
  ],
  json: true,
  async run(cli, [given], options) {
    const before = readConfig(cli.paths);
    const registry = await collectSettings(cli, given, options, before.registry ?? {});
    cli.report({ kind: "step", text: "Trying the registry" });
    const checks = await checkRegistry(cli, registry);
    const works = checks.every(({ ok }) => ok);
    if (works) writeConfig(cli.paths, { ...before, registry });
    const first = variablesSet(cli.env);
    if (works && first.length > 0)
      cli.report({ kind: "note", text: `what the environment says comes before that: ${first.join(", ")}` });
    cli.print({ ok: works, checks }, () => {
      const verdict = works
        ? `Written to ${configPath(cli.paths)}.`
        : "Nothing was written: mend what failed, and log in again.";
      return `${describeChecks(checks, cli.style)}\n${verdict}\n`;
    });
    return works ? 0 : 1;
  },
};

async function collectSettings(
  cli: Cli,
  given: string | undefined,
  options: Options,
  before: RegistrySettings,
): Promise<RegistrySettings> {
  const endpoint = given ?? (await ask(cli, "Endpoint (https://… or file:///…)", "mvmctl registry login ENDPOINT"));
  const { protocol } = endpointOf(endpoint);
  const { trustedKeys, signingKeyFile } = before;
  const kept = { ...(trustedKeys ? { trustedKeys } : {}), ...(signingKeyFile ? { signingKeyFile } : {}) };
  if (protocol === "file:") {
    requireNone(options, Object.keys(OF_A_BUCKET), "a directory has nothing of that kind");
    return { ...kept, endpoint };
  }
  const accessKeyId = textOption(options, "accessKeyId");
  if (accessKeyId === undefined) requireNone(options, ["secretStdin"], "add --access-key-id: whose secret it is");
  const bucket = textOption(options, "bucket") ?? (await ask(cli, "Bucket", "add --bucket NAME"));
  const caFile = textOption(options, "caFile");
  const more = ["region", "prefix", "addressing"].flatMap((key) => {
    const value = textOption(options, key);
    return value === undefined ? [] : [[key, value]];
  });
  return {
    ...kept,
    endpoint,
    bucket,
    ...Object.fromEntries(more),
    ...(caFile === undefined ? {} : { caFile: resolve(cli.cwd, caFile) }),
    ...(accessKeyId === undefined ? {} : { accessKeyId, secretAccessKey: await secret(cli, options) }),
  };
}

/** Options by their names in `Options`, and as they are typed. */
const OF_A_BUCKET = {
  bucket: "--bucket",
  region: "--region",
  prefix: "--prefix",
  caFile: "--ca-file",
  addressing: "--addressing",
  accessKeyId: "--access-key-id",
  secretStdin: "--secret-stdin",
};

/** What is given and would be passed over is a slip. @throws UsageError */
function requireNone(options: Options, names: readonly string[], hint: string): void {
  const given = names.find((name) => options[name] !== undefined);
  if (given !== undefined)
    throw new UsageError(`${OF_A_BUCKET[given as keyof typeof OF_A_BUCKET]} would say nothing here`, hint);
}

async function secret(cli: Cli, options: Options): Promise<string> {
  const text = flag(options, "secretStdin")
    ? await readAll(cli.stdin)
    : await ask(cli, "Secret access key", "add --secret-stdin, and give it on standard input", true);
  if (text.trim() !== "") return text.trim();
  throw new MvmError("REGISTRY_SETTINGS", "the secret access key is empty", {
    hint: "type it, or give it on standard input with --secret-stdin",
  });
}

/** Asks on a terminal, and says how to give it elsewhere; `hidden` shows nothing of what is typed. */
async function ask(cli: Cli, question: string, otherwise: string, hidden = false): Promise<string> {
  if (!cli.stdin.isTTY || !cli.stderr.isTTY)
    throw new UsageError(`${question}: it is not given, and there is no terminal to ask on`, otherwise);
  cli.stderr.write(`${question}: `);
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: cli.stdin, output: hidden ? silent : cli.stderr, terminal: true });
  try {
    return (await lines.question("", { signal: cli.signal })).trim();
  } finally {
    lines.close();
    if (hidden) cli.stderr.write("\n");
  }
}
