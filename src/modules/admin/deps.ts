import type { Control } from '../../platform/control.ts'
import type { Db } from '../../platform/db/db.ts'
import type { Passwords } from '../../platform/passwords.ts'

export interface AdminDeps {
  db: Db
  control: Pick<Control, 'announce'>
  passwords: Passwords
}
