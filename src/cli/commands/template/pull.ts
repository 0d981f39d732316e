import { shortRevision } from "../../../core/names.ts";
import { formatMs } from "../../../core/sizes.ts";
import { expectedStart } from "../../../instance/expected-start.ts";
import { DEFAULT_TAG, parseReference } from "../../../registry/keys.ts";
import { type PullOutcome, pullTemplate } from "../../../registry/pull.ts";
import { openStore } from "../../../registry/settings.ts";
import { describeTotals } from "../../../registry/transfer.ts";
import { trustedKeys } from "../../../registry/trust.ts";
import { flag, type Page } from "../../page.ts";

export const page: Page = {
  summary: "Take a template from the registry",
  description:
    "Makes it the current revision. What is on this machine already is not fetched, every chunk is checked, and nothing is visible before all of it is here. Broken off, it goes on where it stopped.",
  define: (command) =>
    command
      .argument("<name[:tag|@revision]>")
      .option("--no-snapshot", "without snapshots: it boots when it is run")
      .option("--allow-rollback", "take the tag although it went back to an older build"),
  examples: [
    "mvmctl template pull my-service",
    "mvmctl template pull my-service:v1.2",
    "mvmctl template pull my-service@3f9c01d2 --no-snapshot",
  ],
  json: true,
  async run(cli, [text = ""], options) {
    const { template, tag, revision } = parseReference(text);
    const store = await openStore(cli);
    const outcome = await pullTemplate(cli, store, {
      template,
      what: revision !== undefined ? { revision } : { tag: tag ?? DEFAULT_TAG },
      snapshots: options["snapshot"] !== false,
      trustedKeys: trustedKeys(cli),
      allowRollback: flag(options, "allowRollback"),
    });
    const plan = outcome.snapshots.length > 0 ? await expectedStart(cli, template, outcome.revision) : undefined;
    cli.print(outcome, () => describe(outcome, plan?.start === "booted" ? plan.reason : undefined));
  },
};

function describe(
  { template, revision, snapshots, upToDate, totals, durationMs }: PullOutcome,
  whyBooted: string | undefined,
): string {
  const what = `${template} ${shortRevision(revision)}`;
  const start = whyBooted ? `A run will boot it: ${whyBooted}.\n` : "";
  const run = `${start}Run it: mvmctl run --template ${template}\n`;
  if (upToDate) return `${what} is here already, and is the current revision.\n${run}`;
  const with_ =
    snapshots.length > 0 ? ` with ${snapshots.length === 1 ? "a snapshot" : `${snapshots.length} snapshots`}` : "";
  return `Pulled ${what}${with_}: ${describeTotals(totals, "fetched")}, in ${formatMs(durationMs)}.\n${run}`;
}
