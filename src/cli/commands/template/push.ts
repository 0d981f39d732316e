import { shortRevision } from "../../../core/names.ts";
import { formatMs } from "../../../core/sizes.ts";
import { supportsConditions } from "../../../registry/conditions.ts";
import { DEFAULT_TAG, parseReference, parseTag } from "../../../registry/keys.ts";
import { type PushOutcome, pushTemplate } from "../../../registry/push.ts";
import { openStore } from "../../../registry/settings.ts";
import { describeTotals } from "../../../registry/transfer.ts";
import { signingKey } from "../../../registry/trust.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Page, textOption } from "../../page.ts";

export const page: Page = {
  summary: "Send a template to the registry",
  description:
    "Sends the current revision, or the one named, with its snapshots. Only what the registry does not have yet is sent. Broken off, it goes on where it stopped.",
  define: (command) =>
    command
      .argument("<name[@revision]>")
      .option("--tag <tag>", `what to call it (default ${DEFAULT_TAG})`)
      .option("--no-snapshot", "without snapshots: whoever pulls it boots it")
      .option("--sign", "sign it with the configured key")
      .option("--key <file>", "sign it with this key")
      .option("--unsigned", "let a signed tag lose its signature, and a signed revision have a snapshot without one")
      .option("--allow-rollback", "let the tag go back to an older build"),
  examples: [
    "mvmctl template push my-service",
    "mvmctl template push my-service@3f9c01d2 --tag v1.2",
    "mvmctl template push my-service --sign --key release.pem",
  ],
  json: true,
  async run(cli, [what = ""], options) {
    const { template, revision, tag: misplaced } = parseReference(what);
    if (misplaced !== undefined)
      throw new UsageError("a push takes its tag with --tag", `mvmctl template push ${template} --tag ${misplaced}`);
    const tag = parseTag(textOption(options, "tag") ?? DEFAULT_TAG);
    const key = textOption(options, "key");
    const signs = flag(options, "sign") || key !== undefined;
    const store = await openStore(cli);
    const conditions = await supportsConditions(cli, store);
    const outcome = await pushTemplate(cli, store, {
      template,
      ...(revision === undefined ? {} : { revision }),
      tag,
      snapshots: options["snapshot"] !== false,
      ...(signs ? { signingKey: signingKey(cli, key) } : {}),
      allowUnsigned: flag(options, "unsigned"),
      allowRollback: flag(options, "allowRollback"),
      conditionalWrites: conditions.ifAbsent && conditions.ifMatch,
    });
    cli.print(outcome, () => describe(outcome));
  },
};

function describe({ template, revision, tag, snapshots, totals, durationMs }: PushOutcome): string {
  const with_ =
    snapshots.length > 0 ? ` with ${snapshots.length === 1 ? "a snapshot" : `${snapshots.length} snapshots`}` : "";
  return `Pushed ${template} ${shortRevision(revision)}${with_} as ${tag}: ${describeTotals(totals, "sent")}, in ${formatMs(durationMs)}.\n`;
}
