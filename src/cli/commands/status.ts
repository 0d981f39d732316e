import { formatBytes, MiB } from "../../core/sizes.ts";
import { type InstanceUse, type MachineStatus, machineStatus } from "../../instance/status.ts";
import type { Page } from "../page.ts";
import { table } from "../table.ts";

export const page: Page = {
  summary: "Show the hypervisor in use, what runs, and what takes how much",
  define: () => {},
  examples: ["mvmctl status", "mvmctl status --json"],
  json: true,
  async run(cli) {
    const status = await machineStatus(cli);
    cli.print(status, () => describe(status));
  },
};

function describe({ dataDir, hypervisor, instances, disk, registry }: MachineStatus): string {
  const rows: string[][] = [];
  if (hypervisor.usable) {
    const { name, version, accelerator } = hypervisor.identity;
    rows.push(["hypervisor", `${name} ${version} (${accelerator}): ${hypervisor.why}`]);
  } else rows.push(["hypervisor", `none: ${hypervisor.why}${hypervisor.hint ? ` (${hypervisor.hint})` : ""}`]);
  rows.push(["instances", summary(instances)]);
  for (const { name, state, memMiB, memoryBytes } of instances) {
    const takes = memoryBytes === undefined ? "" : `${formatBytes(memoryBytes)} of `;
    rows.push(["", `${name}: ${state}${memMiB === undefined ? "" : `, ${takes}${memMiB} MiB`}`]);
  }
  rows.push(["data directory", dataDir]);
  for (const [what, bytes] of Object.entries(disk)) rows.push(["", `${what}: ${formatBytes(bytes)}`]);
  rows.push([
    "registry",
    registry.configured
      ? `${registry.place} (from the ${registry.from})`
      : "none; set MVM_TEMPLATE_REGISTRY_ENDPOINT, or registry.endpoint in config.json",
  ]);
  return table(rows);
}

function summary(instances: readonly InstanceUse[]): string {
  if (instances.length === 0) return "none";
  const states = Map.groupBy(instances, ({ state }) => state);
  const counts = [...states].map(([state, those]) => `${those.length} ${state}`).join(", ");
  const bytes = instances.reduce((sum, { memoryBytes = 0 }) => sum + memoryBytes, 0);
  const given = instances.reduce((sum, use) => sum + (use.memoryBytes === undefined ? 0 : (use.memMiB ?? 0)), 0);
  return given === 0 ? counts : `${counts}; ${formatBytes(bytes)} in use of ${formatBytes(given * MiB)}`;
}
