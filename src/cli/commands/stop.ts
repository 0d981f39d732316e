import { parseInstanceName } from "../../core/names.ts";
import { listInstances } from "../../instance/list.ts";
import { type StopOutcome, stopInstance } from "../../instance/stop.ts";
import { UsageError } from "../errors.ts";
import { flag, type Page, textOption } from "../page.ts";
import { parseSeconds } from "../seconds.ts";

const DEFAULT_TIMEOUT_SECONDS = "15";

export const page: Page = {
  summary: "Stop instances",
  description:
    "Asks the guest to shut down, and ends it by force if it has not in time. The data disk stays until `rm`, and `start` starts it again. A dead instance stays dead, with why.",
  define: (command) =>
    command
      .argument("[name...]")
      .option("--all", "all that run")
      .option("--timeout <seconds>", `before force is used (default ${DEFAULT_TIMEOUT_SECONDS})`),
  examples: ["mvmctl stop svc", "mvmctl stop --all"],
  json: true,
  async run(cli, names, options) {
    const timeoutMs = parseSeconds("--timeout", textOption(options, "timeout") ?? DEFAULT_TIMEOUT_SECONDS);
    const all = flag(options, "all");
    if (all && names.length > 0) throw new UsageError("--all and names say two things", "give one of them");
    if (!all && names.length === 0)
      throw new UsageError("which instances to stop was not said", "give names, or --all");
    const running = listInstances(cli).filter(({ state }) => !["stopped", "dead", "broken"].includes(state));
    const chosen = (all ? running.map(({ name }) => name) : names).map(parseInstanceName);
    const outcomes: StopOutcome[] = [];
    for (const name of chosen) {
      cli.report({ kind: "step", text: `Stopping ${name}` });
      outcomes.push(await stopInstance(cli, name, { timeoutMs }));
    }
    cli.print(outcomes, () => outcomes.map(describe).join("") || "Nothing runs.\n");
  },
};

function describe({ name, how, reason }: StopOutcome): string {
  const words = { graceful: "stopped", killed: "ended by force", already: "did not run" };
  return `${name}: ${words[how]}${reason === undefined ? "" : `: ${reason}`}\n`;
}
