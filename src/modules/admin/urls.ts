/** The link of a server invite: the web client's page for new accounts. `base` is how people reach the server, with or without a slash. */
export const inviteUrl = (base: string, code: string): string => `${base.replace(/\/+$/, '')}/register?invite_code=${code}`
