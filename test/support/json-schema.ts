type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The keywords that Kubernetes' published schemas use. */
interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema;
  readonly items?: Schema;
  readonly oneOf?: readonly Schema[];
  readonly enum?: readonly Json[];
}
export type Definitions = Readonly<Record<string, Schema>>;

/** What is wrong with a value, as `path: why`. A property that the schema does not name is wrong, too: it would be ignored. */
export function schemaErrors(value: Json, name: string, definitions: Definitions): string[] {
  return errorsOf(value, { $ref: `#/$defs/${name}` }, "", definitions);
}

function errorsOf(value: Json, schema: Schema, path: string, definitions: Definitions): string[] {
  if (schema.$ref) {
    const target = definitions[schema.$ref.split("/").at(-1)!];
    return target ? errorsOf(value, target, path, definitions) : [`${path}: no definition ${schema.$ref}`];
  }
  if (schema.oneOf) {
    const fits = schema.oneOf.filter((one) => errorsOf(value, one, path, definitions).length === 0);
    return fits.length === 1 ? [] : [`${path}: fits ${fits.length} of the alternatives`];
  }
  if (schema.enum && !schema.enum.includes(value)) return [`${path}: not one of ${schema.enum.join(", ")}`];
  if (schema.type && ![schema.type].flat().some((type) => isOfType(value, type)))
    return [`${path}: not of type ${schema.type}`];
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => errorsOf(item, schema.items ?? {}, `${path}[${index}]`, definitions));
  }
  if (typeof value !== "object" || value === null) return [];
  const missing = (schema.required ?? []).filter((key) => !(key in value)).map((key) => `${path}.${key}: missing`);
  const wrong = Object.entries(value).flatMap(([key, item]) => {
    const of = schema.properties?.[key] ?? schema.additionalProperties;
    if (of) return errorsOf(item, of, `${path}.${key}`, definitions);
    return schema.properties ? [`${path}.${key}: not in the schema`] : [];
  });
  return [...missing, ...wrong];
}

function isOfType(value: Json, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}
