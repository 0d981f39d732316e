import { parseInstanceName } from "../../core/names.ts";
import { type InstanceDetails, inspectInstance } from "../../instance/inspect.ts";
import type { Page } from "../page.ts";
import { ago, table } from "../table.ts";

export const page: Page = {
  summary: "Show everything about an instance",
  define: (command) => command.argument("<name>"),
  examples: ["mvmctl inspect svc", "mvmctl inspect svc --json"],
  json: true,
  async run(cli, [name = ""]) {
    const details = await inspectInstance(cli, parseInstanceName(name));
    cli.print(details, () => describe(details));
  },
};

function describe({ status, directory, guest, guestError, logs }: InstanceDetails): string {
  const rows: string[][] = [[status.name, status.state]];
  if (status.state === "dead" || status.state === "broken") rows.push(["  why", status.reason]);
  if (status.state !== "broken") {
    const { template, revision, start, createdAt, hypervisor, cpus, memMiB, dataDiskMiB, ports, isolated, process } =
      status.record;
    rows.push(["  template", `${template} (revision ${revision.slice(0, 12)})`]);
    rows.push([
      "  started",
      `${start} ${ago(createdAt)}${status.record.coldBootReason ? `: ${status.record.coldBootReason}` : ""}`,
    ]);
    rows.push([
      "  hypervisor",
      `${hypervisor.name} ${hypervisor.version} (${hypervisor.accelerator})${process ? `, process ${process.pid}` : ""}`,
    ]);
    rows.push(["  size", `${cpus} CPU, ${memMiB} MiB${dataDiskMiB > 0 ? `, ${dataDiskMiB} MiB data disk` : ""}`]);
    rows.push(["  network", isolated ? "its own (isolated)" : "the host's"]);
    for (const { hostAddress, hostPort, guestPort } of ports)
      rows.push(["  port", `${hostAddress}:${hostPort} reaches ${guestPort}`]);
  }
  rows.push(["  directory", directory]);
  if (logs) rows.push(["  logs", `${logs.console}, ${logs.hypervisor}`]);
  if (guestError !== undefined) rows.push(["  guest", guestError]);
  if (guest) {
    rows.push(["  health", guest.health.status]);
    for (const [name, service] of Object.entries(guest.health.services)) {
      rows.push([
        `  service ${name}`,
        [
          service.state,
          ...(service.pid ? [`process ${service.pid}`] : []),
          `${service.restarts} restarts`,
          ...(service.lastExit ? [`last exit: ${service.lastExit}`] : []),
        ].join(", "),
      ]);
    }
    for (const [name, check] of Object.entries(guest.health.checks))
      rows.push([`  check ${name}`, `${check.status}, ${check.runs} runs`]);
  }
  return table(rows);
}
