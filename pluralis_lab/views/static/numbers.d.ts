/** Types of the number formats, for the JupyterLab extension. */

export const NOT_KNOWN: string;
export function si(value: number | null | undefined, unit?: string): string;
export function fixed(value: number | null | undefined, digits: number): string;
export function precise(value: number | null | undefined): string;
export function percent(share: number | null | undefined): string;
export function duration(seconds: number | null | undefined): string;
export function tickText(value: number): string;
