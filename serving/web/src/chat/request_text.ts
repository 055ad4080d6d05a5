/** Values of a request as text that can be edited, and back. What each task takes is as in prompts/requests.yaml. */

const TAKES: Record<string, string[]> = {
  generate: ["*", "number"],
  annotate: ["*", "asked", "among", "cluster"],
  locate: ["*", "cluster"],
  describe: ["*", "asked", "cluster"],
  complete: ["*", "genes", "count", "number"],
  perturb: ["*", "cluster"],
  explain_shift: [],
  next_state: ["*", "cluster"],
  fate: ["*", "among", "cluster"],
  enhance: ["*", "count", "cluster"],
  embed: ["*", "cluster"],
  edit: ["*", "genes", "cluster"],
  screen: ["start", "goal"],
  speaks_for: ["*", "against", "cluster", "number"],
  genes_like: ["genes", "number"],
  search: ["*", "cluster", "number"],
};
const LISTS = ["asked", "among"];
const NUMBERS = ["count", "number"];

export const fieldsOf = (task: string, fields: string[]): string[] => (TAKES[task] ?? []).flatMap((each) => (each === "*" ? fields : [each]));

export function spellField(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.join("; ");
  if (typeof value === "object") {
    return Object.entries(value)
      .map(([name, said]) => (said === null ? name : `${name}=${String(said)}`))
      .join("; ");
  }
  return String(value);
}

export function readField(name: string, text: string): unknown {
  const parts = text
    .split(";")
    .map((part) => part.trim())
    .filter(Boolean);
  if (LISTS.includes(name)) return parts;
  if (name === "genes") {
    return Object.fromEntries(
      parts.map((part) => {
        const [gene, said] = part.split("=").map((each) => each.trim());
        return [gene, said === undefined || said === "" ? null : /^\d+$/.test(said) ? Number(said) : said];
      }),
    );
  }
  if (NUMBERS.includes(name)) return Number(text) || 1;
  return text.trim();
}
