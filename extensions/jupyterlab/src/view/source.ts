/** What the panes ask the server about one run. */

import type { Api, Prompt } from '../api/client';
import type { AuditReply, Ownership, Receipt, RunEvent } from '../api/types';

export interface Claimed {
  claims: { account: string; name: string; wei: string }[];
}

export interface Paid {
  transaction: string;
  wei: string;
  account: string;
  block: number;
}

/** The routes of one run; every method rejects with `ApiRefusal`, whose message names the value and the remedy. */
export class RunSource {
  constructor(
    private readonly api: Api,
    readonly run: string
  ) {}

  events(since: number, limit: number, kinds: string[]): Promise<{ events: RunEvent[]; next: number }> {
    return this.api.events(this.run, { since, limit, kinds });
  }

  async log(process: string, lines: number): Promise<string> {
    return (await this.api.log(this.run, process, lines)).text;
  }

  receipts(worker: string, limit: number, before?: number): Promise<{ receipts: Receipt[]; total: number }> {
    return this.api.receipts(this.run, worker, { limit, before });
  }

  generate(prompt: Prompt, signal: AbortSignal): AsyncGenerator<string> {
    return this.api.generate(this.run, prompt, signal);
  }

  audit(): Promise<AuditReply> {
    return this.api.audit(this.run);
  }

  ownership(): Promise<Ownership> {
    return this.api.ownership(this.run);
  }

  tokenize(account?: string): Promise<Ownership> {
    return this.api.tokenize(this.run, account);
  }

  pay(amountEth: string, account?: string): Promise<Paid> {
    return this.api.pay(this.run, amountEth, account);
  }

  claim(account?: string): Promise<Claimed> {
    return this.api.claim(this.run, account);
  }
}
