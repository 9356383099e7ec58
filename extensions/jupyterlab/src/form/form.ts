/** The form of a new run: every field of RunSpec out of its schema, checked while it is typed, with what the run will cost. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { el, setText } from '@pluralis-lab/views/dom.js';

import { type NewRun } from '../api/client';
import type { Spec, SpecCheck } from '../api/types';
import { button } from '../panel/button';
import { estimateLines } from '../spec/estimate';
import { type Field, fieldsOf, getIn, type Json, pathOfFault, setIn } from '../spec/schema';
import type { ILab } from '../tokens';
import { type CheckState, SpecChecker } from './checker';
import { type Control, fieldControl, type SpecHolder } from './fields';

/** What one decides first; every other field of the schema follows under "More". */
const FIRST = ['model', 'data', 'stages', 'replicas', 'boundary', 'steps', 'batch_size', 'micro_batches'];

export class RunForm extends Widget implements SpecHolder {
  /**
   * @param like - the id of a run whose spec the form starts with; null for the defaults.
   * @param onStarted - told the id of the run once it is started.
   */
  constructor(
    private readonly lab: ILab,
    private readonly like: string | null,
    private readonly onStarted: (id: string) => void
  ) {
    super();
    this.trans = lab.trans;
    this.addClass('plab-form');
    this.checker = new SpecChecker(
      {
        check: (spec, signal) => lab.api.check(spec, signal),
        setTimer: (after_s, callback) => {
          const timer = setTimeout(callback, 1000 * after_s);
          return () => clearTimeout(timer);
        }
      },
      state => this.onCheck(state)
    );
    this.startButton = button(this.trans.__('Start the run'), 'jp-mod-accept', () => void this.start());
    this.node.append(el('p', { class: 'plab-blank', 'aria-busy': 'true', text: this.trans.__('Reading what a run can be…') }));
    void this.build();
  }

  readonly trans: TranslationBundle;
  spec: Spec = {};

  override dispose(): void {
    this.checker.cancel();
    Signal.clearData(this);
    super.dispose();
  }

  set(path: string[], value: Json): void {
    this.spec = setIn(this.spec, path, value);
    this.edited = path.join('.');
    this.checker.put(this.spec);
  }

  register(path: string[], control: Control): void {
    this.controls.set(path.join('.'), { path, control });
  }

  forget(path: string[]): void {
    const below = `${path.join('.')}.`;
    for (const key of this.controls.keys()) {
      if (key.startsWith(below)) {
        this.controls.delete(key);
      }
    }
  }

  private async build(): Promise<void> {
    const { api } = this.lab;
    try {
      const [{ schema, default: plain }, like] = await Promise.all([api.schema(), this.like ? api.run(this.like) : null]);
      const fields = fieldsOf(schema);
      this.spec = like?.spec ?? leftOpen(plain, fields);
      this.draw(fields, like?.name ?? null);
      this.checker.put(this.spec);
    } catch (error) {
      if (this.isDisposed) {
        return;
      }
      const again = button(this.trans.__('Try again'), '', () => void this.build());
      const message = error instanceof Error ? error.message : String(error);
      this.node.replaceChildren(
        el('div', { class: 'plab-blank', role: 'alert' }, el('p', { text: this.trans.__('The form cannot be shown: %1', message) }), again)
      );
    }
  }

  private draw(fields: Field[], likeName: string | null): void {
    const { trans, lab } = this;
    this.controls.clear();
    const control = (field: Field) => fieldControl(field, this);
    const first = FIRST.map(name => fields.find(one => one.name === name)).filter(one => one !== undefined);
    const more = fields.filter(one => !first.includes(one));
    this.account.value = lab.settings.account;
    const who = el(
      'fieldset',
      { class: 'plab-group' },
      el('legend', { text: trans.__('who') }),
      labelled(trans.__('account'), this.account, trans.__('Founds the run; on the embedded chain it is made on first use.')),
      labelled(
        trans.__('participants'),
        this.participants,
        trans.__('Accounts that own the workers, dealt out in turn, separated by commas; empty: the account above owns all.')
      )
    );
    const names = new Set((lab.runs.rows ?? []).flatMap(row => [row.account, ...row.participants]).filter(Boolean));
    this.known.replaceChildren(...[...names].map(value => el('option', { value })));
    const form = el(
      'form',
      { class: 'plab-form-body', novalidate: true, 'aria-label': trans.__('New run') },
      el(
        'div',
        { class: 'plab-form-fields' },
        el('h2', { text: likeName === null ? trans.__('New run') : trans.__('New run like %1', likeName) }),
        ...first.map(control).filter(one => one !== null),
        who,
        el('details', { class: 'plab-more' }, el('summary', { text: trans.__('More settings') }), ...more.map(control).filter(one => one !== null)),
        this.known
      ),
      el(
        'aside',
        { class: 'plab-form-side', 'aria-label': trans.__('Check and estimate') },
        el('h3', { text: trans.__('What it takes') }),
        this.verdict,
        this.estimate,
        el('div', { class: 'plab-form-buttons' }, this.startButton),
        this.refused
      )
    );
    form.addEventListener('submit', event => {
      event.preventDefault();
      void this.start();
    });
    this.node.replaceChildren(form);
  }

  private onCheck(state: CheckState): void {
    if (this.isDisposed) {
      return;
    }
    const { trans } = this;
    this.estimate.setAttribute('aria-busy', String(state.kind === 'checking'));
    if (state.kind === 'checking') {
      this.estimate.classList.add('plab-mod-old');
      this.checked = null;
      this.startButton.disabled = true;
      return;
    }
    this.clearFaults();
    this.estimate.classList.remove('plab-mod-old');
    if (state.kind === 'failed') {
      this.say('plab-mod-bad', `⚠ ${trans.__('The check could not be made: %1', state.message)}`);
      return;
    }
    const { result } = state;
    this.checked = result;
    this.startButton.disabled = !result.ok;
    if (!result.ok) {
      const place = this.placeFault(result);
      this.say('plab-mod-bad', `✕ ${place ? trans.__('One thing to mend, marked at “%1”.', place) : result.message}`);
    } else {
      this.say('plab-mod-good', `✓ ${trans.__('This can run.')}`);
    }
    if (result.estimate) {
      const steps = getIn(result.spec ?? this.spec, ['steps']);
      const lines = estimateLines(result.estimate, typeof steps === 'number' ? steps : 0, trans);
      this.estimate.replaceChildren(
        ...lines.flatMap(line => [el('dt', { text: line.name }), el('dd', {}, el('b', { text: line.value }), el('span', { text: line.note }))])
      );
    }
    this.estimate.hidden = !result.estimate;
  }

  /** Show the fault at its field; gives the field's name, or "" where it is of the spec as a whole. */
  private placeFault(result: SpecCheck): string {
    const known = [...this.controls.values()];
    const paths = known.map(one => one.path);
    const found = result.fields
      .map(name => pathOfFault(name, paths))
      .map(path => known.find(one => one.path === path))
      .filter(one => one !== undefined)
      // Of the fields that do not fit together, the one just typed is where one looks.
      .sort((a, b) => Number(b.path.join('.') === this.edited) - Number(a.path.join('.') === this.edited))[0];
    if (found) {
      found.control.fault(result.message);
      this.faulty = found.control;
      for (const fold of this.node.querySelectorAll('details')) {
        fold.open ||= fold.querySelector('[aria-invalid="true"]') !== null;
      }
      return found.path.join('.').replace(/_/g, ' ');
    }
    return '';
  }

  private clearFaults(): void {
    this.faulty?.fault('');
    this.faulty = null;
  }

  private say(kind: string, text: string): void {
    this.verdict.className = `plab-form-verdict ${kind}`;
    setText(this.verdict, text);
  }

  private async start(): Promise<void> {
    if (!this.checked?.ok || this.isStarting) {
      this.faulty?.focus();
      return;
    }
    this.isStarting = true;
    this.startButton.disabled = true;
    setText(this.startButton, this.trans.__('Starting…'));
    setText(this.refused, '');
    const participants = this.participants.value.split(/[\s,;]+/).filter(Boolean);
    const run: NewRun = { spec: this.checked.spec ?? this.spec };
    if (this.account.value.trim()) {
      run.account = this.account.value.trim();
    }
    if (participants.length) {
      run.participants = participants;
    }
    try {
      this.onStarted(await this.lab.api.start(run));
    } catch (error) {
      setText(this.refused, `✕ ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      this.isStarting = false;
      this.startButton.disabled = !this.checked.ok;
      setText(this.startButton, this.trans.__('Start the run'));
    }
  }

  private readonly checker: SpecChecker;
  private readonly controls = new Map<string, { path: string[]; control: Control }>();
  private readonly account = el('input', { type: 'text', class: 'jp-mod-styled', list: 'plab-accounts', autocomplete: 'off', spellcheck: 'false' });
  private readonly participants = el('input', { type: 'text', class: 'jp-mod-styled', list: 'plab-accounts', autocomplete: 'off', spellcheck: 'false' });
  private readonly known = el('datalist', { id: 'plab-accounts' });
  private readonly verdict = el('p', { class: 'plab-form-verdict', role: 'status' });
  private readonly estimate = el('dl', { class: 'plab-estimate', hidden: true });
  private readonly refused = el('p', { class: 'plab-fault', role: 'alert' });
  private readonly startButton: HTMLButtonElement;
  private checked: SpecCheck | null = null;
  private faulty: Control | null = null;
  private edited = '';
  private isStarting = false;
}

/** A default that follows from other fields is left open, so that it goes on following them while they are changed. */
function leftOpen(spec: Spec, fields: Field[]): Spec {
  const open = fields.filter(one => one.optional && one.default === null).map(one => [one.name, null]);
  return { ...spec, ...(Object.fromEntries(open) as Spec) };
}

function labelled(label: string, input: HTMLInputElement, about: string): HTMLElement {
  input.id = `plab-${label.replace(/\W+/g, '-')}`;
  input.setAttribute('aria-describedby', `${input.id}-about`);
  return el(
    'div',
    { class: 'plab-field' },
    el('label', { for: input.id, text: label }),
    input,
    el('p', { id: `${input.id}-about`, class: 'plab-about', text: about })
  );
}
