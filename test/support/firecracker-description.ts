/**
 * The requests we make, as src/firecracker/swagger/firecracker.yaml of Firecracker v1.12 to v1.16 describes them: for the
 * stand-in, which refuses whatever does not fit. Fields that the description has and we never send are here too.
 */

export type Schema =
  | { type: "string"; enum?: readonly string[] }
  | { type: "integer"; minimum?: number; maximum?: number }
  | { type: "boolean" }
  | { type: "array"; items: Schema }
  | ObjectSchema;

interface ObjectSchema {
  type: "object";
  required?: readonly string[];
  /** Firecracker refuses all others (serde's deny_unknown_fields). */
  properties: Readonly<Record<string, Schema>>;
}

const text: Schema = { type: "string" };
const flag: Schema = { type: "boolean" };
const oneOf = (...values: string[]): Schema => ({ type: "string", enum: values });
const object = (properties: Record<string, Schema>, required: string[] = []): ObjectSchema => ({
  type: "object",
  properties,
  required,
});

const bucket = object(
  {
    one_time_burst: { type: "integer", minimum: 0 },
    refill_time: { type: "integer", minimum: 0 },
    size: { type: "integer", minimum: 0 },
  },
  ["refill_time", "size"],
);
const rateLimiter = object({ bandwidth: bucket, ops: bucket });

export interface Operation {
  readonly body?: ObjectSchema;
  /** When Firecracker takes it. */
  readonly when: "before" | "after" | "always";
}

/** By method and path; `{id}` must equal the body's field of that name. */
export function operations(minor: number): Record<string, Operation> {
  const since = (first: number, properties: Record<string, Schema>) => (minor >= first ? properties : {});
  return {
    "GET /version": { when: "always" },
    "GET /": { when: "always" },
    "PUT /machine-config": {
      when: "before",
      body: object(
        {
          cpu_template: oneOf("C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"),
          smt: flag,
          mem_size_mib: { type: "integer" },
          track_dirty_pages: flag,
          vcpu_count: { type: "integer", minimum: 1, maximum: 32 },
          huge_pages: oneOf("None", "2M"),
        },
        ["mem_size_mib", "vcpu_count"],
      ),
    },
    "PUT /boot-source": {
      when: "before",
      body: object({ boot_args: text, initrd_path: text, kernel_image_path: text }, ["kernel_image_path"]),
    },
    "PUT /drives/{drive_id}": {
      when: "before",
      body: object(
        {
          drive_id: text,
          partuuid: text,
          is_root_device: flag,
          cache_type: oneOf("Unsafe", "Writeback"),
          is_read_only: flag,
          path_on_host: text,
          rate_limiter: rateLimiter,
          io_engine: oneOf("Sync", "Async"),
          socket: text,
        },
        ["drive_id", "is_root_device"],
      ),
    },
    "PUT /network-interfaces/{iface_id}": {
      when: "before",
      body: object(
        {
          guest_mac: text,
          host_dev_name: text,
          iface_id: text,
          rx_rate_limiter: rateLimiter,
          tx_rate_limiter: rateLimiter,
          ...since(16, { mtu: { type: "integer", minimum: 68, maximum: 65_535 } }),
        },
        ["host_dev_name", "iface_id"],
      ),
    },
    "PUT /vsock": {
      when: "before",
      body: object({ guest_cid: { type: "integer", minimum: 3 }, uds_path: text, vsock_id: text }, [
        "guest_cid",
        "uds_path",
      ]),
    },
    "PUT /entropy": { when: "before", body: object({ rate_limiter: rateLimiter }) },
    "PUT /logger": {
      when: "always",
      body: object({
        level: oneOf("Error", "Warning", "Info", "Debug", "Trace", "Off"),
        log_path: text,
        show_level: flag,
        show_log_origin: flag,
        module: text,
      }),
    },
    "PUT /metrics": { when: "always", body: object({ metrics_path: text }, ["metrics_path"]) },
    "PUT /actions": {
      when: "always",
      body: object({ action_type: oneOf("FlushMetrics", "InstanceStart", "SendCtrlAltDel") }, ["action_type"]),
    },
    "PATCH /vm": { when: "after", body: object({ state: oneOf("Paused", "Resumed") }, ["state"]) },
    "PUT /snapshot/create": {
      when: "after",
      body: object({ mem_file_path: text, snapshot_path: text, snapshot_type: oneOf("Full", "Diff") }, [
        "mem_file_path",
        "snapshot_path",
      ]),
    },
    "PUT /snapshot/load": {
      when: "before",
      body: object(
        {
          enable_diff_snapshots: flag,
          mem_file_path: text,
          mem_backend: object({ backend_type: oneOf("File", "Uffd"), backend_path: text }, [
            "backend_type",
            "backend_path",
          ]),
          snapshot_path: text,
          resume_vm: flag,
          network_overrides: {
            type: "array",
            items: object({ iface_id: text, host_dev_name: text }, ["iface_id", "host_dev_name"]),
          },
          ...since(13, { track_dirty_pages: flag }),
          ...since(14, { clock_realtime: flag }),
          ...since(16, { vsock_override: object({ uds_path: text }, ["uds_path"]) }),
        },
        ["snapshot_path"],
      ),
    },
  };
}

/** The first way in which a value does not fit, or undefined. */
export function misfit(schema: Schema, value: unknown, at = "body"): string | undefined {
  switch (schema.type) {
    case "string":
      if (typeof value !== "string") return `${at} is no string`;
      return schema.enum && !schema.enum.includes(value) ? `${at} '${value}' is not one of ${schema.enum}` : undefined;
    case "boolean":
      return typeof value === "boolean" ? undefined : `${at} is no boolean`;
    case "integer":
      if (!Number.isInteger(value)) return `${at} is no integer`;
      return Number(value) < (schema.minimum ?? -Infinity) || Number(value) > (schema.maximum ?? Infinity)
        ? `${at} ${value} is out of range`
        : undefined;
    case "array":
      if (!Array.isArray(value)) return `${at} is no array`;
      return first(value.map((item, index) => misfit(schema.items, item, `${at}[${index}]`)));
    case "object":
      return misfitOfObject(schema, value, at);
  }
}

function misfitOfObject(schema: ObjectSchema, value: unknown, at: string): string | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return `${at} is no object`;
  const missing = schema.required?.find((name) => !(name in value));
  if (missing) return `missing field \`${missing}\``;
  return first(
    Object.entries(value).map(([name, field]) => {
      const known = schema.properties[name];
      return known ? misfit(known, field, `${at}.${name}`) : `unknown field \`${name}\``;
    }),
  );
}

function first(misfits: (string | undefined)[]): string | undefined {
  return misfits.find((found) => found !== undefined);
}
