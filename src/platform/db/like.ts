/** A text as a part of a pattern of LIKE: what would be a wildcard stands for itself. */
export const escapeLike = (text: string): string => text.replace(/[\\%_]/g, '\\$&')
