/** The Ask pane: a text for the model to go on with, and what it writes, as it comes through the stages. */

import type { Prompt } from '../api/client';
import type { RunPicture } from '../api/types';
import { numberIn, whyNoText } from './askmodel';
import { duration, el, setAttributes, setText } from './core';
import type { Pane, PaneContext, PaneKind } from './pane';
import { button, explain, messageOf, note } from './parts';

export const ask: PaneKind = {
  id: 'ask',
  title: trans => trans.__('Ask'),
  caption: trans => trans.__('Have the model go on with a text'),
  place: 'above',
  isShown: picture => picture.writes_text === true,
  create: context => new AskPane(context)
};

const MOST_TOKENS = 100_000;
const MOST_SEED = Number.MAX_SAFE_INTEGER;

class AskPane implements Pane {
  readonly node: HTMLElement;
  private readonly prompt: HTMLTextAreaElement;
  private readonly tokens: HTMLInputElement;
  private readonly temperature: HTMLInputElement;
  private readonly seed: HTMLInputElement;
  private readonly write: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly reason = note();
  private readonly outcome = note();
  private readonly given = el('span', { class: 'plab-given' });
  private readonly written = el('span');
  private readonly answer: HTMLElement;
  /** Ends the text that is being written; null when there is none. */
  private writing: AbortController | null = null;

  constructor(private readonly context: PaneContext) {
    const { trans } = context;
    this.prompt = el('textarea', { class: 'plab-search plab-prompt', rows: 3, spellcheck: 'false', text: 'def main(' });
    this.prompt.addEventListener('keydown', event => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        void this.begin();
      }
    });
    const number = (value: string): HTMLInputElement => el('input', { type: 'text', class: 'plab-search plab-amount', inputmode: 'decimal', value });
    this.tokens = number('100');
    this.temperature = number('0.8');
    this.seed = number('0');
    this.temperature.title = trans.__('0 takes the likeliest token; above, tokens are drawn, the more freely the higher');
    this.seed.title = trans.__('Of what is drawn: the same seed and weights write the same text');
    this.write = button(trans.__('Write'), () => void this.begin(), 'main');
    this.stop = button(trans.__('Stop writing'), () => this.writing?.abort());
    this.stop.hidden = true;
    this.answer = el('pre', { class: 'plab-log plab-answer', tabindex: '0', role: 'region', 'aria-label': trans.__('What the model wrote') }, this.given, this.written);
    this.answer.hidden = true;
    this.node = el(
      'div',
      { class: 'plab-ask-pane' },
      el('label', { class: 'plab-prompt-label' }, trans.__('Text to go on from'), this.prompt),
      el(
        'div',
        { class: 'plab-tools' },
        ...([[trans.__('Tokens'), this.tokens], [trans.__('Temperature'), this.temperature], [trans.__('Seed'), this.seed]] as const).map(([text, input]) =>
          el('label', { class: 'plab-check' }, text, input)
        ),
        this.write,
        this.stop
      ),
      this.reason.node,
      el('p', { class: 'plab-muted', text: trans.__('Goes through every stage, and every stage’s worker can read it: token ids are the text.') }),
      this.outcome.node,
      this.answer
    );
  }

  draw(picture: RunPicture): void {
    const { trans } = this.context;
    const why = this.context.readOnly() ? trans.__('This server is read-only: it shows runs and asks nothing of them.') : whyNoText(picture, trans);
    this.reason.update(why);
    explain(this.write, why);
  }

  dispose(): void {
    this.writing?.abort();
  }

  private async begin(): Promise<void> {
    const asked = this.read();
    if (!asked || this.writing || this.write.ariaDisabled === 'true') {
      return;
    }
    const { trans, source } = this.context;
    const writing = (this.writing = new AbortController());
    const begun = performance.now();
    let tokens = 0;
    setText(this.given, asked.prompt);
    setText(this.written, '');
    this.answer.hidden = this.stop.hidden = false;
    this.write.hidden = true;
    this.stop.focus();
    setAttributes(this.answer, { 'aria-busy': 'true' });
    this.outcome.update(trans.__('The model writes…'));
    try {
      for await (const piece of source.generate(asked, writing.signal)) {
        tokens += 1;
        this.append(piece);
      }
      this.outcome.update(trans._n('%1 token in %2', '%1 tokens in %2', tokens, duration((performance.now() - begun) / 1000)), 'good');
    } catch (error) {
      if (writing.signal.aborted) {
        this.outcome.update(trans._n('stopped after %1 token', 'stopped after %1 tokens', tokens));
      } else {
        this.outcome.update(messageOf(error), 'trouble');
      }
    } finally {
      this.writing = null;
      setAttributes(this.answer, { 'aria-busy': 'false' });
      const hadFocus = document.activeElement === this.stop;
      this.write.hidden = false;
      this.stop.hidden = true;
      if (hadFocus) {
        this.write.focus();
      }
    }
  }

  /** Stay at the end if the reader is there; stay where they are if they scrolled up. */
  private append(piece: string): void {
    const isAtEnd = this.answer.scrollHeight - this.answer.scrollTop - this.answer.clientHeight < 24;
    this.written.append(piece);
    if (isAtEnd) {
      this.answer.scrollTop = this.answer.scrollHeight;
    }
  }

  /** What is asked, or null where something is not as it must be; that is marked and said. */
  private read(): Prompt | null {
    const { trans } = this.context;
    const prompt = this.prompt.value;
    const tokens = numberIn(this.tokens.value, 1, MOST_TOKENS, true);
    const temperature = numberIn(this.temperature.value, 0, 1000, false);
    const seed = numberIn(this.seed.value, 0, MOST_SEED, true);
    const faults: [HTMLElement, string][] = [
      [this.prompt, prompt ? '' : trans.__('Type a text to go on from, at least one character.')],
      [this.tokens, tokens === null ? trans.__('Tokens: a whole number from 1 to %1.', MOST_TOKENS) : ''],
      [this.temperature, temperature === null ? trans.__('Temperature: 0, or a number above.') : ''],
      [this.seed, seed === null ? trans.__('Seed: a whole number from 0.') : '']
    ];
    for (const [input, fault] of faults) {
      setAttributes(input, { 'aria-invalid': fault ? 'true' : null });
    }
    const first = faults.find(([, fault]) => fault);
    if (first || tokens === null || temperature === null || seed === null) {
      this.outcome.update(first?.[1] ?? '', 'trouble');
      first?.[0].focus();
      return null;
    }
    return { prompt, tokens, temperature, seed };
  }
}
