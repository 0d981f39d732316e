import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { formatBytes, formatMs } from "../../../core/sizes.ts";
import { type TemplateInfo, templateInfo } from "../../../template/store.ts";
import type { Page } from "../../page.ts";
import { ago, table } from "../../table.ts";

export const page: Page = {
  summary: "Show a template, its revisions and snapshots",
  define: (command) => command.argument("<name>"),
  examples: ["mvmctl template info my-service"],
  json: true,
  async run(cli, [name = ""]) {
    const info = templateInfo(cli.paths, parseTemplateName(name));
    cli.print(info, () => describe(info));
  },
};

function describe({ spec, current, revisions, pendingChanges }: TemplateInfo): string {
  const head = table([
    [`${spec.name}`, ""],
    ["  flake", spec.flake],
    ["  profile", spec.profile],
    ["  role", spec.role],
    [
      "  size",
      `${spec.cpus} CPU, ${spec.memMiB} MiB memory, ${spec.dataDiskMiB > 0 ? `${spec.dataDiskMiB} MiB data disk` : "no data disk"}`,
    ],
  ]);
  const pending =
    pendingChanges.length > 0
      ? `\nChanged since the current revision was built (rebuild to apply):\n${pendingChanges.map((text) => `  ${text}\n`).join("")}`
      : "";
  if (revisions.length === 0)
    return `${head}${pending}\nNot built yet: mvmctl template build ${spec.name} --snapshot\n`;
  const lines = revisions.flatMap((revision) => {
    const mark = revision.id === current ? "current" : "";
    if (revision.broken !== undefined) return [`  ${shortRevision(revision.id)}  damaged: ${revision.broken}`];
    const bytes = revision.artifacts.reduce((sum, { size }) => sum + size, 0);
    const when = revision.builtAt ? `built ${ago(revision.builtAt)}` : "pulled";
    return [
      `  ${shortRevision(revision.id)}  ${[when, formatBytes(bytes), `package ${revision.package}`, mark].filter(Boolean).join(", ")}`,
      ...revision.snapshots.map(
        (snapshot) =>
          `    snapshot for ${snapshot.hypervisor.name} ${snapshot.hypervisor.version} (${snapshot.hypervisor.accelerator}, ${snapshot.hypervisor.cpuModel}): ${formatBytes(snapshot.memoryBytesOnDisk)}, taken ${ago(snapshot.createdAt)}, healthy after ${formatMs(snapshot.healthyMs)}`,
      ),
      ...revision.brokenSnapshots.map(({ key, reason }) => `    snapshot ${key}  damaged: ${reason}`),
    ];
  });
  return `${head}${pending}\nRevisions:\n${lines.join("\n")}\n`;
}
