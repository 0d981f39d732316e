import { listInstances } from "../../instance/list.ts";
import type { InstanceStatus } from "../../instance/record.ts";
import type { Page } from "../page.ts";
import { ago, table } from "../table.ts";

export const page: Page = {
  summary: "List instances",
  define: () => {},
  examples: ["mvmctl ls", "mvmctl ls --json"],
  json: true,
  async run(cli) {
    const instances = listInstances(cli);
    cli.print(instances, () => {
      if (instances.length === 0) return "There are no instances. Start one: mvmctl run --template NAME\n";
      return table([["NAME", "STATE", "TEMPLATE", "STARTED", "PORTS", "WHY"], ...instances.map(row)]);
    });
  },
};

function row(status: InstanceStatus): string[] {
  if (status.state === "broken") return [status.name, "damaged", "", "", "", status.reason];
  const { template, start, createdAt, ports } = status.record;
  const published = ports.map(({ hostPort, guestPort }) => `${hostPort}:${guestPort}`).join(" ");
  return [
    status.name,
    status.state,
    template,
    `${start} ${ago(createdAt)}`,
    published,
    status.state === "dead" ? status.reason : "",
  ];
}
