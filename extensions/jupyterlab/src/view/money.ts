/** Wei as people read and write them. Amounts are decimal texts because they exceed 2^53; arithmetic is on bigints. DOM-free. */

const WEI = 10n ** 18n;

export function wei(text: string | null | undefined): bigint {
  return text && /^-?\d+$/.test(text) ? BigInt(text) : 0n;
}

/** "1500000000000000000" -> "1.5"; at most `digits` decimals, rounded towards zero; a tiny amount is "< 0.0001", never "0". */
export function ether(text: string | null | undefined, digits = 4): string {
  const amount = wei(text);
  const negative = amount < 0n;
  const size = negative ? -amount : amount;
  const whole = size / WEI;
  const decimals = (size % WEI).toString().padStart(18, '0').slice(0, digits).replace(/0+$/, '');
  if (size > 0n && whole === 0n && !decimals) {
    return `${negative ? '> -' : '< '}0.${'0'.repeat(digits - 1)}1`;
  }
  return `${negative ? '-' : ''}${grouped(whole)}${decimals ? `.${decimals}` : ''}`;
}

/** 1234567 -> "1 234 567", with thin no-break spaces. */
export function grouped(whole: bigint): string {
  return whole.toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

export type Amount = { ok: true; text: string; wei: bigint } | { ok: false; why: 'empty' | 'form' | 'zero' | 'fine' };

/** Read an amount in ETH as a person types it ("0,5" and "0.5" are the same); the text is what the server is told. */
export function readAmount(typed: string): Amount {
  const text = typed.trim().replace(',', '.');
  if (!text) {
    return { ok: false, why: 'empty' };
  }
  const parts = /^(\d{1,12})(?:\.(\d+))?$/.exec(text) ?? /^()\.(\d+)$/.exec(text);
  if (!parts) {
    return { ok: false, why: 'form' };
  }
  const decimals = parts[2] ?? '';
  if (decimals.length > 18) {
    return { ok: false, why: 'fine' };
  }
  const amount = BigInt(parts[1] || '0') * WEI + BigInt(decimals.padEnd(18, '0') || '0');
  return amount === 0n ? { ok: false, why: 'zero' } : { ok: true, text: text.startsWith('.') ? `0${text}` : text, wei: amount };
}

/** How `amount` is divided over holders by their shares, rounded towards zero: what each may claim of it. */
export function split(amount: bigint, holders: readonly { name: string; shares_wei: string }[]): { name: string; wei: bigint }[] {
  const supply = holders.reduce((sum, holder) => sum + wei(holder.shares_wei), 0n);
  return holders.map(holder => ({ name: holder.name, wei: supply > 0n ? (amount * wei(holder.shares_wei)) / supply : 0n }));
}

/** "0x1234…cdef" for an address or a root; a short text stays as it is. */
export function shortHex(text: string): string {
  return text.length > 14 ? `${text.slice(0, 6)}…${text.slice(-4)}` : text;
}
