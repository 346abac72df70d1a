/** The link of a server invite: the web client's page for new accounts. `base` is how people reach the server, without a slash at its end. */
export const inviteUrl = (base: string, code: string): string => `${base}/register?invite_code=${code}`
