import { type Check, guarded } from "../../host/check.ts";
import { checkMachine } from "../../host/doctor.ts";
import { checkInstances } from "../../instance/checks.ts";
import { checkTemplates } from "../../template/checks.ts";
import type { Cli, Style } from "../cli.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Check that this machine has what is needed, and say how to mend it",
  description: `Looks at the programs, the hypervisor, memory and disks, the configuration, and every template and instance of the data
directory, and says of each what was found and which command mends it. Leftovers of killed commands are removed.
Exits with 1 if the main job (building a template with a snapshot, and running it) can't be done here; a warning does not change the exit code.`,
  define: () => {},
  examples: ["mvmctl doctor", "mvmctl doctor --json"],
  json: true,
  async run(cli) {
    cli.report({ kind: "step", text: "Looking at this machine" });
    const checks = await diagnose(cli);
    const works = checks.every(({ state }) => state !== "failed");
    cli.print({ ok: works, checks }, () => describe(checks, cli.style));
    return works ? 0 : 1;
  },
};

async function diagnose(cli: Cli): Promise<Check[]> {
  return [
    ...(await checkMachine(cli)),
    ...(await guarded("templates", () => checkTemplates(cli.paths, cli.signal))),
    ...(await guarded("instances", () => checkInstances(cli.paths))),
  ];
}

function describe(checks: readonly Check[], style: Style): string {
  const colour = { ok: style.green, warning: style.yellow, failed: style.red };
  const width = Math.max(...checks.map(({ subject }) => subject.length));
  const lines = checks.flatMap(({ subject, state, reason, mend }) => [
    `${colour[state](state.padEnd(7))}  ${subject.padEnd(width)}  ${reason}`,
    ...(mend ? [`${" ".repeat(width + 11)}mend it: ${mend}`] : []),
  ]);
  const count = (state: Check["state"]) => checks.filter((check) => check.state === state).length;
  const verdict =
    count("failed") > 0
      ? "The main job can't be done here until what failed is mended."
      : `This machine can build and run templates${count("warning") > 0 ? "; the warnings say what could be better" : ""}.`;
  return `${lines.join("\n")}\n\n${verdict}\n`;
}
