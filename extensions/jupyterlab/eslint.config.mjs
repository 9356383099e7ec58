import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['lib', 'node_modules', 'scripts', 'style', '*.mjs'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { project: ['./tsconfig.test.json'], tsconfigRootDir: import.meta.dirname } },
    rules: {
      // A callback that returns what it called is the plainest form of "do this then".
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true }],
      // Numbers read well in a text as they are.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // Lumino's dialogs and signals hand over `unknown` in places where a check would only repeat the type.
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      '@typescript-eslint/no-non-null-assertion': 'error',
      // An index may miss although its type does not say so, and what a server or a notebook sends need not fit its type.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // Lumino's way to connect is `signal.connect(this.method, this)`.
      '@typescript-eslint/unbound-method': 'off',
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'Text of runs is hostile: use textContent.' },
        { property: 'outerHTML', message: 'Text of runs is hostile: use textContent.' },
        { property: 'insertAdjacentHTML', message: 'Text of runs is hostile: use textContent.' }
      ]
    }
  }
);
