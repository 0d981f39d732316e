import { parseInstanceName } from "../../core/names.ts";
import type { RunOutcome } from "../../instance/run-request.ts";
import { startInstance } from "../../instance/start.ts";
import type { Page } from "../page.ts";
import { defineWaiting, describeStart, parseWaiting } from "../starting.ts";

export const page: Page = {
  summary: "Start stopped or dead instances again, as they were",
  description:
    "With what they were run with: the template's revision, sizes, ports, variables, network, and data disk. Directories given with -v are copied anew. `run --name` of the same name starts it with other settings.",
  define: (command) => void defineWaiting(command.argument("<name...>")),
  examples: ["mvmctl start svc", "mvmctl start svc other --wait running"],
  json: true,
  async run(cli, names, options) {
    const waiting = parseWaiting(options);
    const chosen = names.map(parseInstanceName);
    const outcomes: RunOutcome[] = [];
    for (const name of chosen) outcomes.push(await startInstance(cli, name, waiting));
    cli.print(outcomes, () => outcomes.map(describeStart).join(""));
  },
};
