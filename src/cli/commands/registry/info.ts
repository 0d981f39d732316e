import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { formatBytes } from "../../../core/sizes.ts";
import { type RemoteTemplateInfo, remoteTemplateInfo } from "../../../registry/catalogue.ts";
import { openStore } from "../../../registry/settings.ts";
import type { Page } from "../../page.ts";
import { ago } from "../../table.ts";

export const page: Page = {
  summary: "Show what the registry has of a template",
  define: (command) => command.argument("<name>"),
  examples: ["mvmctl registry info my-service"],
  json: true,
  async run(cli, [name = ""]) {
    const store = await openStore(cli);
    const info = await remoteTemplateInfo(cli, store, parseTemplateName(name));
    cli.print(info, () => describe(info));
  },
};

function describe({ name, revisions, damaged }: RemoteTemplateInfo): string {
  const lines = revisions.flatMap((revision) => {
    const tags = revision.tags.length > 0 ? ` (${revision.tags.join(", ")})` : "";
    return [
      `  ${shortRevision(revision.id)}${tags}: built ${ago(revision.builtAt)}, ${revision.architecture}, ${sizes(revision)}${signed(revision.signedBy)}`,
      ...revision.snapshots.map(
        (snapshot) => `    snapshot ${snapshot.key}: ${sizes(snapshot)}${signed(snapshot.signedBy)}`,
      ),
    ];
  });
  const broken = damaged.map(({ object, reason }) => `  damaged: ${object}: ${reason}`);
  return `${[name, ...lines, ...broken].join("\n")}\n`;
}

function sizes({ size, storedBytes }: { size: number; storedBytes: number }): string {
  return `${formatBytes(size)}, ${formatBytes(storedBytes)} stored`;
}

function signed(keys: readonly string[]): string {
  return keys.length > 0 ? `, signed by ${keys.join(", ")}` : "";
}
